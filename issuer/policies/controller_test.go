// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// holding is a cache that holds one policy.
type holding struct {
	client.Client
	policy *api.TokenPolicy
}

func (h holding) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	h.policy.DeepCopyInto(into.(*api.TokenPolicy))
	return nil
}

func (h holding) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	into.(*api.TokenPolicyList).Items = []api.TokenPolicy{*h.policy}
	return nil
}

// Otherwise a tenant with a finalizer of his own could keep every issuer that starts from
// serving anybody.
func TestAPolicyThatIsBeingDeletedDoesNotKeepTheIssuerFromBeingReady(t *testing.T) {
	policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "1"}}
	c := New(holding{policy: policy}, Options{})
	ready := c.Ready()
	probe := httptest.NewRequest(http.MethodGet, "/readyz", http.NoBody)
	if ready(probe) == nil {
		t.Error("ready before the policy was loaded")
	}
	policy.DeletionTimestamp, policy.Finalizers = &metav1.Time{Time: time.Now()}, []string{"example.com/forever"}
	if _, err := c.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(policy)}); err != nil {
		t.Fatal(err)
	}
	if err := ready(probe); err != nil {
		t.Error(err)
	}
}

// In the middle of an upgrade the schema is newer than this issuer. A policy that it
// does not understand must neither bring it down nor keep it from being ready for
// everybody else.
func TestAPolicyOfANewerReleaseIsRefusedAlone(t *testing.T) {
	for name, spec := range map[string]api.TokenPolicySpec{
		"another user source":   {Store: api.Store{ConfigMap: &api.ConfigMapStore{Shards: 1, MaxSessions: 1}}},
		"another session store": {Users: api.Users{Secret: &api.SecretUsers{Name: "shop-users"}}},
	} {
		t.Run(name, func(t *testing.T) {
			policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "1"}, Spec: spec}
			key := client.ObjectKeyFromObject(policy)
			c := New(holding{policy: policy}, Options{Namespace: "tokenward-system", Users: SourceOptions{Now: time.Now}, Stores: StoreOptions{
				OpenConfigMaps: func(context.Context, *api.TokenPolicy) (Store, error) { return &closable{}, nil },
			}})
			if result, err := c.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil || result.RequeueAfter != 0 {
				t.Errorf("%+v, %v", result, err)
			}
			if !c.Known(key) {
				t.Error("readiness would wait for it for ever")
			}
			var refused *refusal.Error
			if _, err := c.Policy("shop", "web"); !errors.As(err, &refused) || refused.RetryAfter == 0 {
				t.Errorf("its callers are told: %v", err)
			}
		})
	}
}
