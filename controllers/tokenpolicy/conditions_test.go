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
	users := func(status metav1.ConditionStatus, reason, message string, generation int64) []metav1.Condition {
		return []metav1.Condition{{Type: api.ConditionUsersReady, Status: status, Reason: reason, Message: message, ObservedGeneration: generation}}
	}
	tests := map[string]struct {
		refused *refusal
		users   []metav1.Condition
		status  metav1.ConditionStatus
		reason  string
		message string
	}{
		"published, the issuer silent":                 {nil, nil, metav1.ConditionUnknown, api.ReasonPending, "the issuer has not reported on the users of this generation yet."},
		"published, the issuer on an older generation": {nil, users("True", api.ReasonUsersReady, "ok", 6), metav1.ConditionUnknown, api.ReasonPending, "the issuer has not reported on the users of this generation yet."},
		"published, users ready":                       {nil, users("True", api.ReasonUsersReady, "ok", 7), metav1.ConditionTrue, api.ReasonReady, "every part of this policy works."},
		"published, some users broken":                 {nil, users("True", api.ReasonUsersPartlyInvalid, "bob: no hash", 7), metav1.ConditionTrue, api.ReasonUsersPartlyInvalid, "bob: no hash"},
		"published, users denied":                      {nil, users("False", api.ReasonSecretAccessDenied, "kubectl create role …", 7), metav1.ConditionFalse, api.ReasonSecretAccessDenied, "kubectl create role …"},
		"refused, users ready":                         {&refusal{api.ReasonRuleUnreachable, "rule 1"}, users("True", api.ReasonUsersReady, "ok", 7), metav1.ConditionFalse, api.ReasonRuleUnreachable, "rule 1"},
		"refused, users denied":                        {&refusal{api.ReasonRuleUnreachable, "rule 1"}, users("False", api.ReasonSecretAccessDenied, "grant", 7), metav1.ConditionFalse, api.ReasonRuleUnreachable, "rule 1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Name: "shop", Generation: 7}, Status: api.TokenPolicyStatus{Conditions: test.users}}
			got := conditions(policy, test.refused, time.Unix(1000, 0))
			ready := meta.FindStatusCondition(got, api.ConditionReady)
			want := metav1.Condition{
				Type: api.ConditionReady, Status: test.status, Reason: test.reason, Message: test.message,
				ObservedGeneration: 7, LastTransitionTime: metav1.Unix(1000, 0),
			}
			if diff := cmp.Diff(want, *ready); diff != "" {
				t.Errorf("Ready (-want +got):\n%s", diff)
			}
			if meta.FindStatusCondition(got, api.ConditionUsersReady) != nil {
				t.Error("the manager writes the issuer's condition")
			}
		})
	}
}

func TestATransitionTimeMovesWithTheStatusAlone(t *testing.T) {
	policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Name: "shop", Generation: 1}}
	policy.Status.Conditions = conditions(policy, &refusal{api.ReasonSigningKeyNotFound, "none"}, time.Unix(1000, 0))

	policy.Generation = 2
	policy.Status.Conditions = conditions(policy, &refusal{api.ReasonRuleUnreachable, "rule 1"}, time.Unix(2000, 0))
	if published := policy.Status.Conditions[0]; published.LastTransitionTime.Unix() != 1000 || published.Reason != api.ReasonRuleUnreachable || published.ObservedGeneration != 2 {
		t.Errorf("another reason for the same status: %+v", published)
	}
	policy.Status.Conditions = conditions(policy, nil, time.Unix(3000, 0))
	if published := policy.Status.Conditions[0]; published.LastTransitionTime.Unix() != 3000 {
		t.Errorf("another status: %+v", published)
	}
}
