// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package userstatus

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/users/secret"
)

func TestTheConditionSaysWhatToDo(t *testing.T) {
	policy := &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 3},
		Spec:       api.TokenPolicySpec{Users: api.Users{Secret: &api.SecretUsers{Name: "shop-users"}}},
	}
	resource := schema.GroupResource{Resource: "secrets"}
	wrap := func(err error) error { return fmt.Errorf("read the users: get Secret shop/shop-users: %w", err) }
	tests := map[string]struct {
		report secret.Report
		err    error
		status metav1.ConditionStatus
		reason string
		says   []string
	}{
		"all is well": {
			report: secret.Report{Users: 2},
			status: metav1.ConditionTrue, reason: api.ReasonUsersReady, says: []string{"2 users"},
		},
		"some entries are broken": {
			report: secret.Report{Users: 1, Broken: []secret.Broken{{Key: "bob", Reason: "the value is not a JSON object"}}},
			status: metav1.ConditionTrue, reason: api.ReasonUsersPartlyInvalid, says: []string{"bob: the value is not a JSON object", "1 can"},
		},
		"not granted": {
			err:    wrap(apierrors.NewForbidden(resource, "shop-users", errors.New("no RBAC"))),
			status: metav1.ConditionFalse, reason: api.ReasonSecretAccessDenied,
			says: []string{
				"kubectl create role tokenward-users-web --namespace=shop --verb=get --resource=secrets --resource-name=shop-users && " +
					"kubectl create rolebinding tokenward-users-web --namespace=shop --role=tokenward-users-web --serviceaccount=tokenward-system:tokenward-issuer",
			},
		},
		"no such Secret": {
			err:    wrap(apierrors.NewNotFound(resource, "shop-users")),
			status: metav1.ConditionFalse, reason: api.ReasonSecretNotFound, says: []string{`"shop-users"`, `"shop"`, "spec.users.secret.name", "create it"},
		},
		"an outage": {
			err:    wrap(errors.New("read tcp 10.0.0.1:53412: connection reset")),
			status: metav1.ConditionFalse, reason: api.ReasonUsersUnavailable, says: []string{"for now"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := condition(policy, test.report, test.err, ServiceAccount{Namespace: "tokenward-system", Name: "tokenward-issuer"})
			if got.Type != api.ConditionUsersReady || got.Status != test.status || got.Reason != test.reason || got.ObservedGeneration != 3 {
				t.Errorf("got %+v", got)
			}
			for _, want := range test.says {
				if !strings.Contains(got.Message, want) {
					t.Errorf("%q does not say %q", got.Message, want)
				}
			}
			if strings.Contains(got.Message, "53412") {
				t.Error("the message would change with every try")
			}
		})
	}
}

func TestTheConditionIsBounded(t *testing.T) {
	policy := &api.TokenPolicy{Spec: api.TokenPolicySpec{Users: api.Users{Secret: &api.SecretUsers{Name: strings.Repeat("s", 253)}}}}
	var report secret.Report
	for i := range 5000 {
		report.Broken = append(report.Broken, secret.Broken{Key: fmt.Sprintf("%0253d", i), Reason: strings.Repeat("ö", 5000)})
	}
	got := condition(policy, report, nil, ServiceAccount{})
	if len(got.Message) > 32768 || !strings.Contains(got.Message, "and 4990 more") {
		t.Errorf("%d bytes", len(got.Message))
	}
}
