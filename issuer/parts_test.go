// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session/configmap"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/issuer/policies"
	"github.com/tokenward/tokenward/issuer/report"
	"github.com/tokenward/tokenward/issuer/sealing"
)

// fineStore is a session store that works, as far as anybody looks.
type fineStore struct{ policies.Store }

func (fineStore) Look(context.Context) policies.StoreLook { return policies.StoreLook{} }

func TestTheConditionIsWrittenOnlyWhenItChanges(t *testing.T) {
	n := newTenant(t)
	writes := 0
	counting := interceptor.NewClient(shared.admin, interceptor.Funcs{
		SubResourceApply: func(ctx context.Context, c client.Client, subResource string, object runtime.ApplyConfiguration, options ...client.SubResourceApplyOption) error {
			writes++
			return c.SubResource(subResource).Apply(ctx, object, options...)
		},
	})
	parts := policies.New(shared.admin, policies.Options{
		Namespace: operator,
		Users:     policies.SourceOptions{Live: shared.admin, Hasher: password.NewPool(1, 1, nil), Now: n.clock.Now},
		Stores: policies.StoreOptions{OpenConfigMaps: func(context.Context, *api.TokenPolicy) (policies.Store, error) {
			return fineStore{}, nil
		}},
	})
	request := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(n.policy)}
	controller := report.New(counting, report.Options{
		Parts: parts, Issuer: report.ServiceAccount{Namespace: operator, Name: "tokenward-issuer"}, Now: n.clock.Now,
	})
	if result, err := controller.Reconcile(t.Context(), request); err != nil || result.RequeueAfter == 0 || writes > 0 {
		t.Fatalf("before the policy is served: %+v, %v, %d writes", result, err, writes)
	}
	if _, err := parts.Reconcile(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	look := func(want int, reason string) {
		t.Helper()
		n.pass(2e9)
		result, err := controller.Reconcile(t.Context(), request)
		if err != nil || result.RequeueAfter == 0 {
			t.Fatalf("%+v, %v", result, err)
		}
		if got := n.usersReady(); writes != want || got.Reason != reason {
			t.Errorf("%d writes, want %d; condition %+v", writes, want, got)
		}
	}
	look(2, api.ReasonUsersReady) // one for each condition
	look(2, api.ReasonUsersReady)
	n.users(func(data map[string][]byte) { data["eve"] = []byte("{}") })
	look(3, api.ReasonUsersPartlyInvalid)
	look(3, api.ReasonUsersPartlyInvalid)
	transition := n.usersReady().LastTransitionTime
	n.users(func(data map[string][]byte) { delete(data, "eve") })
	look(4, api.ReasonUsersReady)
	if got := n.usersReady().LastTransitionTime; !got.Equal(&transition) {
		t.Errorf("the status stayed true, and its transition moved from %v to %v", transition, got)
	}
}

func TestSealingKeysComeLateAndAreNeverLost(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "operator-"}}
	create(t, namespace)
	keys := sealing.New(shared.admin, namespace.Name)
	if _, err := keys.Sealer(t.Context()); !errors.Is(err, sealing.ErrNoKeys) {
		t.Fatalf("before the Secret exists: %v", err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: configmap.SecretName}, Data: map[string][]byte{"current": []byte("x")}}
	create(t, secret)
	if sealer, err := keys.Sealer(t.Context()); sealer != nil || err == nil || errors.Is(err, sealing.ErrNoKeys) {
		t.Fatalf("a Secret without its key: %v", err)
	}
	update := func(data map[string][]byte) {
		t.Helper()
		secret.Data = data
		if err := shared.admin.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	update(configmap.AddSealingKey(nil))
	first, err := keys.Sealer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	update(map[string][]byte{"current": []byte("gone")})
	if again, err := keys.Sealer(t.Context()); again != first || err != nil {
		t.Errorf("a Secret that is broken later: %v", err)
	}
	if _, err := keys.Reconcile(t.Context(), ctrl.Request{}); err == nil {
		t.Error("nobody is told that it is broken")
	}
	if err := shared.admin.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if again, err := keys.Sealer(t.Context()); again != first || err != nil {
		t.Errorf("a Secret that is deleted later: %v", err)
	}
}
