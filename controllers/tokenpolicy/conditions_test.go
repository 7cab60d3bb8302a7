// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

func TestReadySumsUp(t *testing.T) {
	report := func(kind string, status metav1.ConditionStatus, reason, message string, generation int64) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: generation}
	}
	users := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return report(api.ConditionUsersReady, status, reason, message, 7)
	}
	store := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return report(api.ConditionStoreReady, status, reason, message, 7)
	}
	usersReady, storeReady := users("True", api.ReasonUsersReady, "ok"), store("True", api.ReasonStoreReady, "ok")
	denied, away := users("False", api.ReasonSecretAccessDenied, "kubectl create role …"), store("False", api.ReasonUnreachable, "nobody answers")
	const (
		usersPending = "the issuer has not reported on the users of this generation yet."
		storePending = "the issuer has not reported on the session store of this generation yet."
		all          = "every part of this policy works."
	)
	configMap, redis := api.Store{ConfigMap: &api.ConfigMapStore{}}, api.Store{Redis: &api.RedisStore{}}
	unreachable := &refusal{api.ReasonRuleUnreachable, "rule 1"}
	tests := map[string]struct {
		refused *refusal
		store   api.Store
		issuer  []metav1.Condition
		status  metav1.ConditionStatus
		reason  string
		message string
	}{
		"the issuer is silent":                  {nil, redis, nil, "Unknown", api.ReasonPending, usersPending},
		"the issuer is silent, ConfigMaps":      {nil, configMap, nil, "Unknown", api.ReasonPending, usersPending},
		"an older generation of users":          {nil, redis, []metav1.Condition{report(api.ConditionUsersReady, "True", api.ReasonUsersReady, "ok", 6), storeReady}, "Unknown", api.ReasonPending, usersPending},
		"an older generation of the store":      {nil, redis, []metav1.Condition{usersReady, report(api.ConditionStoreReady, "True", api.ReasonStoreReady, "ok", 6)}, "Unknown", api.ReasonPending, storePending},
		"an older generation of ConfigMaps":     {nil, configMap, []metav1.Condition{usersReady, report(api.ConditionStoreReady, "True", api.ReasonStoreReady, "ok", 6)}, "Unknown", api.ReasonPending, storePending},
		"all is well":                           {nil, redis, []metav1.Condition{usersReady, storeReady}, "True", api.ReasonReady, all},
		"an older issuer, ConfigMaps":           {nil, configMap, []metav1.Condition{usersReady}, "True", api.ReasonReady, all},
		"an older issuer, a store it knows not": {nil, redis, []metav1.Condition{usersReady}, "Unknown", api.ReasonPending, storePending},
		"an older issuer of an older state":     {nil, configMap, []metav1.Condition{report(api.ConditionUsersReady, "True", api.ReasonUsersReady, "ok", 6)}, "Unknown", api.ReasonPending, usersPending},
		"some users broken":                     {nil, redis, []metav1.Condition{users("True", api.ReasonUsersPartlyInvalid, "bob: no hash"), storeReady}, "True", api.ReasonUsersPartlyInvalid, "bob: no hash"},
		"some sessions broken":                  {nil, configMap, []metav1.Condition{usersReady, store("True", api.ReasonStorePartlyUnreadable, "records")}, "True", api.ReasonStorePartlyUnreadable, "records"},
		"some of both broken":                   {nil, configMap, []metav1.Condition{users("True", api.ReasonUsersPartlyInvalid, "bob: no hash"), store("True", api.ReasonStorePartlyUnreadable, "records")}, "True", api.ReasonUsersPartlyInvalid, "bob: no hash"},
		"some users broken, no store":           {nil, redis, []metav1.Condition{users("True", api.ReasonUsersPartlyInvalid, "bob: no hash"), away}, "False", api.ReasonUnreachable, "nobody answers"},
		"users denied":                          {nil, redis, []metav1.Condition{denied, storeReady}, "False", api.ReasonSecretAccessDenied, "kubectl create role …"},
		"store away":                            {nil, redis, []metav1.Condition{usersReady, away}, "False", api.ReasonUnreachable, "nobody answers"},
		"store away, nothing about users":       {nil, redis, []metav1.Condition{away}, "False", api.ReasonUnreachable, "nobody answers"},
		"users denied and store away":           {nil, redis, []metav1.Condition{away, denied}, "False", api.ReasonSecretAccessDenied, "kubectl create role …"},
		"refused":                               {unreachable, redis, []metav1.Condition{usersReady, storeReady}, "False", api.ReasonRuleUnreachable, "rule 1"},
		"refused, users denied":                 {unreachable, redis, []metav1.Condition{denied, away}, "False", api.ReasonRuleUnreachable, "rule 1"},
		"refused, the issuer silent":            {unreachable, redis, nil, "False", api.ReasonRuleUnreachable, "rule 1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			policy := &api.TokenPolicy{
				ObjectMeta: metav1.ObjectMeta{Name: "shop", Generation: 7},
				Spec:       api.TokenPolicySpec{Store: test.store},
				Status:     api.TokenPolicyStatus{Conditions: test.issuer},
			}
			got := conditions(&scope{policy: policy, refused: test.refused}, time.Unix(1000, 0))
			ready := meta.FindStatusCondition(got, api.ConditionReady)
			want := metav1.Condition{
				Type: api.ConditionReady, Status: test.status, Reason: test.reason, Message: test.message,
				ObservedGeneration: 7, LastTransitionTime: metav1.Unix(1000, 0),
			}
			if diff := cmp.Diff(want, *ready); diff != "" {
				t.Errorf("Ready (-want +got):\n%s", diff)
			}
			for _, condition := range []string{api.ConditionUsersReady, api.ConditionStoreReady} {
				if meta.FindStatusCondition(got, condition) != nil {
					t.Errorf("the manager writes the issuer's condition %s", condition)
				}
			}
		})
	}
}

func TestATransitionTimeMovesWithTheStatusAlone(t *testing.T) {
	policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Name: "shop", Generation: 1}}
	policy.Status.Conditions = conditions(&scope{policy: policy, refused: &refusal{api.ReasonSigningKeyNotFound, "none"}}, time.Unix(1000, 0))

	policy.Generation = 2
	policy.Status.Conditions = conditions(&scope{policy: policy, refused: &refusal{api.ReasonRuleUnreachable, "rule 1"}}, time.Unix(2000, 0))
	if published := policy.Status.Conditions[0]; published.LastTransitionTime.Unix() != 1000 || published.Reason != api.ReasonRuleUnreachable || published.ObservedGeneration != 2 {
		t.Errorf("another reason for the same status: %+v", published)
	}
	policy.Status.Conditions = conditions(&scope{policy: policy, refused: nil}, time.Unix(3000, 0))
	if published := policy.Status.Conditions[0]; published.LastTransitionTime.Unix() != 3000 {
		t.Errorf("another status: %+v", published)
	}
}
