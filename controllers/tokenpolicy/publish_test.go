// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

func TestEveryOrderEndsReady(t *testing.T) {
	type step func(w *world)
	key := func(w *world) { w.key("shop") }
	policy := func(w *world) { w.policy("shop", "shop") }
	certificates := func(w *world) { w.authorities(authority(w.TB)) }
	orders := map[string][]step{
		"key, policy":               {key, policy},
		"policy, key":               {policy, key},
		"policy, key, certificates": {policy, key, certificates},
		"certificates, policy, key": {certificates, policy, key},
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			if err := client.IgnoreNotFound(cluster.Admin.Delete(t.Context(), authoritiesObject())); err != nil {
				t.Fatal(err)
			}
			w := &world{TB: t, namespace: cluster.Tenant(t), clock: newClock()}
			t.Cleanup(w.forget)
			if len(order) == 2 {
				w.authorities(authority(t))
			}
			w.start()
			for _, step := range order {
				step(w)
			}
			shop := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "shop"}}
			w.published(shop)
			w.condition(shop, api.ConditionReady, api.ReasonPending)
			w.issuerReports(shop, metav1.ConditionTrue, api.ReasonUsersReady, "ok")
			if ready := w.condition(shop, api.ConditionReady, api.ReasonReady); ready.Status != metav1.ConditionTrue {
				t.Errorf("Ready is %+v", ready)
			}
		})
	}
}

func TestWhileSomethingIsMissingTheConditionSaysWhat(t *testing.T) {
	w := newWorld(t)
	policy := w.policy("shop", "shoop")
	missing := w.condition(policy, api.ConditionReady, api.ReasonSigningKeyNotFound)
	for _, part := range []string{"spec.signingKeyRef.name", `"shoop"`, w.namespace} {
		if !strings.Contains(missing.Message, part) {
			t.Errorf("the message does not name %s: %s", part, missing.Message)
		}
	}
	unready := &api.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "shoop"}, Spec: api.SigningKeySpec{
		ImportFrom: &api.ImportSource{SecretRef: api.SecretKeyReference{Name: "none", Key: "none"}},
	}}
	if err := cluster.Admin.Create(t.Context(), unready); err != nil {
		t.Fatal(err)
	}
	w.condition(policy, api.ConditionReady, api.ReasonSigningKeyNotReady)
	controllertest.Eventually(t, "the message says why", func(context.Context) error {
		ready := w.condition(policy, api.ConditionReady, api.ReasonSigningKeyNotReady)
		if !strings.Contains(ready.Message, api.ReasonSecretAccessDenied) {
			return fmt.Errorf("it says %s", ready.Message)
		}
		return nil
	})
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "tokenward-shop"}}
	if err := cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(configMap), configMap); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("settings without a key are published (%v)", err)
	}
}

func TestAnotherSigningKey(t *testing.T) {
	w := newWorld(t)
	first, second := w.key("first"), w.key("second")
	policy := w.policy("shop", "first")
	w.settled(policy, "the first key's set", func(_ *settings.Settings, keys *token.KeySet) bool { return keys.Owner() == string(first.UID) })
	w.change(policy, func() { policy.Spec.SigningKeyRef.Name = "second" })
	w.published(policy)
	w.settled(policy, "the second key's set", func(s *settings.Settings, keys *token.KeySet) bool {
		return keys.Owner() == string(second.UID) && s.Policy.Generation == policy.Generation
	})
}

func TestTheLastGoodSettingsStay(t *testing.T) {
	w := newWorld(t)
	key := w.key("shop")
	policy := w.policy("shop", "shop")
	w.published(policy)
	good, keys, err := settingsOf(t.Context(), policy)
	if err != nil {
		t.Fatal(err)
	}
	w.change(policy, func() {
		policy.Spec.Issuer = "https://other.example.com"
		policy.Spec.Rules = []api.Rule{rule("", prefix("/")), rule("", exact("/never"))}
	})
	refused := w.condition(policy, api.ConditionSettingsPublished, api.ReasonRuleUnreachable)
	if !strings.Contains(refused.Message, "spec.rules[1]") || !strings.Contains(refused.Message, "spec.rules[0]") {
		t.Errorf("the message: %s", refused.Message)
	}
	w.event(policy, api.ReasonPublished, corev1.EventTypeNormal)
	w.event(policy, api.ReasonRuleUnreachable, corev1.EventTypeWarning)
	after, _, err := settingsOf(t.Context(), policy)
	if err != nil || after.Issuer != good.Issuer || after.Policy.Generation != good.Policy.Generation {
		t.Errorf("the settings changed to %+v (%v)", after, err)
	}

	// A revoked key stops verifying whatever else is wrong with the policy.
	revoked := keys.Keys()[0].ID
	if err := cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(key), key); err != nil {
		t.Fatal(err)
	}
	w.change(key, func() { key.Spec.RevokedKeyIDs = []string{revoked} })
	w.settled(policy, "the revoked key is gone from the last good settings", func(s *settings.Settings, keys *token.KeySet) bool {
		_, known := keys.Lookup(revoked)
		return !known && len(keys.Keys()) == 1 && s.Issuer == good.Issuer && s.Policy.Generation == good.Policy.Generation
	})

	if err := cluster.Admin.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	w.condition(policy, api.ConditionSettingsPublished, api.ReasonSigningKeyNotFound)
	if _, _, err := settingsOf(t.Context(), policy); err != nil {
		t.Errorf("the last good settings are gone with the SigningKey: %v", err)
	}
}

func (w *world) event(policy *api.TokenPolicy, reason, kind string) {
	w.Helper()
	controllertest.Eventually(w.TB, "there is an Event "+reason, func(ctx context.Context) error {
		events := &eventsv1.EventList{}
		if err := cluster.Admin.List(ctx, events, client.InNamespace(policy.Namespace)); err != nil {
			return err
		}
		for _, event := range events.Items {
			if event.Regarding.UID == policy.UID && event.Reason == reason && event.Type == kind {
				return nil
			}
		}
		return fmt.Errorf("not among %d", len(events.Items))
	})
}

func TestSomebodyElsesConfigMapIsLeftAlone(t *testing.T) {
	other := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop", UID: types.UID("0815"), Controller: new(true)}
	tests := map[string]metav1.ObjectMeta{
		"without any mark":      {},
		"with our label alone":  {Labels: settingsLabels()},
		"of another controller": {Labels: settingsLabels(), OwnerReferences: []metav1.OwnerReference{other}},
	}
	for name, meta := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			meta.Namespace, meta.Name = w.namespace, "tokenward-shop"
			theirs := &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{settings.Key: "theirs"}}
			if err := cluster.Admin.Create(t.Context(), theirs); err != nil {
				t.Fatal(err)
			}
			version := theirs.ResourceVersion
			w.key("shop")
			policy := w.policy("shop", "shop")
			conflict := w.condition(policy, api.ConditionReady, api.ReasonConfigMapConflict)
			if !strings.Contains(conflict.Message, `"tokenward-shop"`) {
				t.Errorf("the message: %s", conflict.Message)
			}
			if err := cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(theirs), theirs); err != nil || theirs.ResourceVersion != version {
				t.Errorf("it was touched: %+v (%v)", theirs, err)
			}
			r := &reconciler{client: cluster.Admin, live: cluster.Admin, options: Options{Namespace: controllertest.Namespace, Clock: w.clock}}
			s := &scope{policy: policy}
			if err := r.readPublished(t.Context(), s); err != nil || s.recheck() != conflictInterval {
				t.Errorf("again in %s (%v)", s.recheck(), err)
			}
			if err := cluster.Admin.Delete(t.Context(), theirs); err != nil {
				t.Fatal(err)
			}
			w.change(policy, func() { metav1.SetMetaDataAnnotation(&policy.ObjectMeta, "example.com/look", "again") })
			w.published(policy)
		})
	}
}

func TestAnEditOfTheSettingsIsRepaired(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy := w.policy("shop", "shop")
	w.published(policy)
	name := client.ObjectKey{Namespace: w.namespace, Name: "tokenward-shop"}
	original := &corev1.ConfigMap{}
	if err := cluster.Admin.Get(t.Context(), name, original); err != nil {
		t.Fatal(err)
	}
	forged, err := token.GenerateKey("EdDSA", 0)
	if err != nil {
		t.Fatal(err)
	}
	edits := map[string]func(*corev1.ConfigMap){
		"garbage":            func(c *corev1.ConfigMap) { c.Data[settings.Key] = "{" },
		"everything deleted": func(c *corev1.ConfigMap) { c.Data = nil },
		"the label removed":  func(c *corev1.ConfigMap) { c.Labels = nil },
		"a key of somebody else's, in a version that is newer than all": func(c *corev1.ConfigMap) {
			s, keys, err := settingsOf(t.Context(), policy)
			if err != nil {
				t.Fatal(err)
			}
			set, err := token.NewKeySet(keys.Owner(), keys.Version()+1<<40, []token.PublicKey{forged.Public()})
			if err != nil {
				t.Fatal(err)
			}
			if s.Keys, err = set.MarshalJSON(); err != nil {
				t.Fatal(err)
			}
			document, err := s.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			c.Data[settings.Key] = string(document)
		},
	}
	for what, edit := range edits {
		t.Run(what, func(t *testing.T) {
			edited := &corev1.ConfigMap{}
			if err := cluster.Admin.Get(t.Context(), name, edited); err != nil {
				t.Fatal(err)
			}
			edit(edited)
			if err := cluster.Admin.Update(t.Context(), edited); err != nil {
				t.Fatal(err)
			}
			w.repaired(original)
		})
	}
	t.Run("deleted", func(t *testing.T) {
		if err := cluster.Admin.Delete(t.Context(), original.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		w.repaired(original)
	})
}

func (w *world) repaired(original *corev1.ConfigMap) {
	w.Helper()
	controllertest.Eventually(w.TB, "the settings are as they were", func(ctx context.Context) error {
		now := &corev1.ConfigMap{}
		if err := cluster.Admin.Get(ctx, client.ObjectKeyFromObject(original), now); err != nil {
			return err
		}
		if now.Data[settings.Key] != original.Data[settings.Key] || !owned.Carries(now, original.Labels) || len(now.OwnerReferences) != 1 {
			return fmt.Errorf("they are %v %v", now.ObjectMeta, now.Data)
		}
		return nil
	})
}

func TestNewAuthoritiesReachEveryPolicy(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policies := []*api.TokenPolicy{w.policy("one", "shop"), w.policy("two", "shop")}
	for _, policy := range policies {
		w.published(policy)
	}
	next := authority(t)
	w.authorities(next)
	for _, policy := range policies {
		w.settled(policy, "the new authority", func(s *settings.Settings, _ *token.KeySet) bool { return s.IssuerService.CABundle == next })
	}
}
