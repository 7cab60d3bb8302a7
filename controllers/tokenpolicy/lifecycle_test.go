// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/token"
)

func TestTheIssuersConditionStaysTheIssuers(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy := w.policy("shop", "shop")
	w.published(policy)
	w.issuerReports(policy, metav1.ConditionFalse, api.ReasonSecretAccessDenied, "kubectl create role …")
	if ready := w.condition(policy, api.ConditionReady, api.ReasonSecretAccessDenied); ready.Status != metav1.ConditionFalse || ready.Message != "kubectl create role …" {
		t.Errorf("Ready does not repeat what the issuer says: %+v", ready)
	}
	// A write of the manager's own, with the issuer's condition there.
	w.change(policy, func() { policy.Spec.Rules = []api.Rule{rule("", prefix("/")), rule("", exact("/never"))} })
	w.condition(policy, api.ConditionSettingsPublished, api.ReasonRuleUnreachable)
	users := meta.FindStatusCondition(policy.Status.Conditions, api.ConditionUsersReady)
	if users == nil || users.Reason != api.ReasonSecretAccessDenied || users.ObservedGeneration != 1 {
		t.Errorf("the issuer's condition is %+v", users)
	}
	for _, entry := range policy.ManagedFields {
		if entry.Manager == string(owned.FieldOwner) && entry.Subresource == "status" && entry.Operation != metav1.ManagedFieldsOperationApply {
			t.Errorf("the manager's status is not applied: %+v", entry)
		}
	}
	w.change(policy, func() { policy.Spec.Rules = nil })
	w.condition(policy, api.ConditionReady, api.ReasonPending)
	w.issuerReports(policy, metav1.ConditionTrue, api.ReasonUsersReady, "ok")
	w.condition(policy, api.ConditionReady, api.ReasonReady)
}

func TestDeletionTakesTheSessionsAlong(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy, other := w.policy("shop", "shop"), w.policy("other", "shop")
	w.published(policy)
	w.published(other)
	shard := func(policy *api.TokenPolicy, i int) *corev1.ConfigMap {
		shard := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: controllertest.Namespace, Name: fmt.Sprintf("sessions-%s-%d", policy.UID, i),
			Labels: map[string]string{api.ComponentLabel: owned.Sessions, owned.PolicyUIDLabel: string(policy.UID)},
		}}
		if err := cluster.Admin.Create(t.Context(), shard); err != nil {
			t.Fatal(err)
		}
		return shard
	}
	doomed := []client.Object{shard(policy, 0), shard(policy, 1), policy}
	kept := shard(other, 0)
	if err := cluster.Admin.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	for _, object := range doomed {
		controllertest.Eventually(t, object.GetName()+" is gone", func(ctx context.Context) error {
			if err := cluster.Admin.Get(ctx, client.ObjectKeyFromObject(object), object); !apierrors.IsNotFound(err) {
				return fmt.Errorf("it is there (%w)", err)
			}
			return nil
		})
	}
	if err := cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(kept), kept); err != nil {
		t.Errorf("another policy's sessions: %v", err)
	}
}

// TestSessionsWithoutAPolicyAreRemoved: what is young may belong to a policy that is
// just being made.
func TestSessionsWithoutAPolicyAreRemoved(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	living := w.policy("shop", "shop")
	store := func(name, uid string) client.Object {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: controllertest.Namespace, Name: name,
			Labels: map[string]string{api.ComponentLabel: owned.Sessions, owned.PolicyUIDLabel: uid},
		}}
		if err := cluster.Admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cluster.Admin.Delete(context.WithoutCancel(t.Context()), object) })
		return object
	}
	gone := "00000000-0000-4000-8000-000000000000"
	orphans := []client.Object{store("sessions-"+gone+"-0", gone), store("attempts-"+gone, gone)}
	kept := []client.Object{store("sessions-"+string(living.UID)+"-0", string(living.UID))}
	exists := func(object client.Object) bool {
		err := cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object)
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	sweep := func(later time.Duration) {
		t.Helper()
		clock := clocktesting.NewFakePassiveClock(orphans[0].GetCreationTimestamp().Add(later))
		r := &reconciler{client: cluster.Admin, live: cluster.Admin, options: Options{Namespace: controllertest.Namespace, Clock: clock}}
		if err := r.deleteOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sweep(orphanAge)
	for _, object := range append(orphans, kept...) {
		if !exists(object) {
			t.Errorf("%s is gone, and is young", object.GetName())
		}
	}
	sweep(orphanAge + 2*time.Second)
	for _, object := range orphans {
		if exists(object) {
			t.Errorf("%s is there", object.GetName())
		}
	}
	for _, object := range kept {
		if !exists(object) {
			t.Errorf("%s is gone, and its policy is there", object.GetName())
		}
	}
}

// TestAManagerThatLagsBehindUndoesNothing applies with what was read before another
// manager published.
func TestAManagerThatLagsBehindUndoesNothing(t *testing.T) {
	w := newWorld(t)
	key := w.key("shop")
	policy := w.policy("shop", "shop")
	w.published(policy)
	stale := &corev1.ConfigMap{}
	if err := cluster.Admin.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "tokenward-shop"}, stale); err != nil {
		t.Fatal(err)
	}
	_, before, err := settingsOf(t.Context(), policy)
	if err != nil {
		t.Fatal(err)
	}
	w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, api.RotateAnnotation, "1") })
	newer := func(_ any, keys *token.KeySet) bool { return keys.Supersedes(before) }
	controllertest.Eventually(t, "the next key is published", func(ctx context.Context) error {
		s, keys, err := settingsOf(ctx, policy)
		if err == nil && !newer(s, keys) {
			err = fmt.Errorf("version %d", keys.Version())
		}
		return err
	})

	lagging := &reconciler{client: cluster.Admin}
	err = lagging.apply(t.Context(), &scope{policy: policy, configMap: stale, content: []byte(stale.Data["settings.json"])})
	if !apierrors.IsConflict(err) {
		t.Errorf("the stale write ended with %v", err)
	}
	if s, keys, err := settingsOf(t.Context(), policy); err != nil || !newer(s, keys) {
		t.Errorf("an older key set replaced a newer one (%v)", err)
	}
}

// TestOneHundredPoliciesOnOneKey shows what a rotation costs, and that nothing is
// written once it is over, or by a restart.
func TestOneHundredPoliciesOnOneKey(t *testing.T) {
	w := newWorld(t)
	const n = 100
	key := w.key("shop")
	policies := make([]*api.TokenPolicy, n)
	for i := range policies {
		policies[i] = w.policy(fmt.Sprintf("shop-%d", i), "shop")
	}
	for _, policy := range policies {
		w.published(policy)
	}
	w.requests.Quiet(t, 500*time.Millisecond)
	perPolicy := float64(len(w.requests.Writes())) / n
	t.Logf("%.2f writes for a new policy", perPolicy)
	if perPolicy > 3.5 { // finalizer, settings, status; and the key's own few
		t.Errorf("%.2f writes for a new policy", perPolicy)
	}

	before, begin := len(w.requests.Writes()), time.Now()
	reads := w.requests.Reads()
	w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, api.RotateAnnotation, "1") })
	for _, policy := range policies {
		controllertest.Eventually(t, "the next key is published", func(ctx context.Context) error {
			_, keys, err := settingsOf(ctx, policy)
			if err == nil && len(keys.Keys()) != 2 {
				err = fmt.Errorf("%d keys", len(keys.Keys()))
			}
			return err
		})
	}
	took := time.Since(begin)
	w.requests.Quiet(t, 500*time.Millisecond)
	writes := len(w.requests.Writes()) - before
	t.Logf("a new key reached %d policies in %s with %d writes and %d reads", n, took, writes, w.requests.Reads()-reads)
	if writes > n+5 {
		t.Errorf("%d writes for a new key of %d policies", writes, n)
	}

	w.stop()
	w.start()
	w.requests.Quiet(t, time.Second)
	if writes := w.requests.Writes(); len(writes) != 0 {
		t.Errorf("a restart writes, although nothing changed: %v", writes)
	}
}
