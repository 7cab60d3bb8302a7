// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/token"
)

func TestAKeyOfEveryAlgorithmIsGenerated(t *testing.T) {
	w := newWorld(t)
	for _, algorithm := range token.Algorithms() {
		t.Run(string(algorithm), func(t *testing.T) {
			w := *w
			w.TB = t
			spec := api.SigningKeySpec{Algorithm: api.SigningAlgorithm(algorithm)}
			if strings.HasPrefix(string(algorithm), "RS") || strings.HasPrefix(string(algorithm), "PS") {
				spec.RSAKeyBits = new(int32(2048))
			}
			key := w.create(strings.ToLower(string(algorithm)), spec)
			w.ready(key, api.ReasonKeyActive)

			private, public := w.stored(key)
			active, _ := private.Active()
			if active.Public.Algorithm != algorithm || len(private.Keys) != 1 || key.Status.ActiveKeyID != active.Public.ID {
				t.Errorf("ring %+v, status %+v", private, key.Status)
			}
			if err := w.verify(key, w.sign(key)); err != nil {
				t.Errorf("a new token does not verify: %v", err)
			}
			for _, k := range public.Keys {
				if k.Private != nil {
					t.Error("the public record holds a private half")
				}
			}
		})
	}
}

func TestWhatEverybodyMayReadHoldsNothingPrivate(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{Algorithm: "ES256"})
	w.ready(key, api.ReasonKeyActive)

	name := client.ObjectKey{Namespace: controllertest.Namespace, Name: owned.KeyringName(key.UID)}
	secret, record := &corev1.Secret{}, &corev1.ConfigMap{}
	if err := cluster.Admin.Get(t.Context(), name, secret); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Admin.Get(t.Context(), name, record); err != nil {
		t.Fatal(err)
	}
	var document struct {
		Keys []struct {
			Private string `json:"private"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(secret.Data[owned.KeyringKey], &document); err != nil || len(document.Keys) != 1 || len(document.Keys[0].Private) < 40 {
		t.Fatalf("no private half in the Secret (%v): the test looks in the wrong place", err)
	}
	status, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"public record": record.Data[owned.KeyringKey], "SigningKey": string(status)} {
		if strings.Contains(text, document.Keys[0].Private) || strings.Contains(text, `"private"`) {
			t.Errorf("the %s holds the private half", what)
		}
	}
	for _, object := range []client.Object{secret, record} {
		if !owned.Carries(object, owned.Labels(owned.SigningKey, key)) {
			t.Errorf("%T has the labels %v", object, object.GetLabels())
		}
	}
}

func TestTheClockRotates(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{Rotation: &api.Rotation{
		Interval: &metav1.Duration{Duration: 24 * time.Hour}, PublishBefore: &metav1.Duration{Duration: 10 * time.Minute},
	}})
	w.ready(key, api.ReasonKeyActive)
	first, old := key.Status.ActiveKeyID, w.sign(key)

	w.pass(key, 24*time.Hour-10*time.Minute)
	w.states(key, api.KeyPublished, api.KeyActive)
	if key.Status.ActiveKeyID != first {
		t.Error("the published key signs before its time")
	}
	if from := key.Status.Keys[0].ActiveFrom; !from.Equal(&metav1.Time{Time: epoch.Add(24 * time.Hour)}) {
		t.Errorf("the published key signs from %v", from)
	}

	w.pass(key, 10*time.Minute-time.Second)
	w.requests.Quiet(t, 300*time.Millisecond)
	w.states(key, api.KeyPublished, api.KeyActive)

	w.pass(key, time.Second)
	w.states(key, api.KeyActive, api.KeyRetired)
	if key.Status.ActiveKeyID == first {
		t.Error("the old key still signs")
	}
	private, _ := w.stored(key)
	if private.Keys[1].Public.ID != first || private.Keys[1].Private != nil {
		t.Errorf("the private half of the retired key is not deleted: %+v", private.Keys[1])
	}
	if err := w.verify(key, old); err != nil {
		t.Errorf("a token of the retired key: %v", err)
	}

	retention := defaultTTL + defaultIdleTimeout + defaultLeeway
	w.pass(key, retention-time.Second)
	w.requests.Quiet(t, 300*time.Millisecond)
	if err := w.verify(key, old); err != nil {
		t.Errorf("a token of the retired key, a second before its removal: %v", err)
	}
	w.pass(key, time.Second)
	w.states(key, api.KeyActive)
	if reason, _ := token.ReasonOf(w.verify(key, old)); reason != token.KeyUnknown {
		t.Errorf("a token of the removed key is refused with %q", reason)
	}
	w.events(key, "KeyActivated", "KeyPublished", "KeyRetired", "KeyRemoved")
}

// events waits until there are Events with these reasons.
func (w *world) events(key *api.SigningKey, reasons ...string) {
	w.Helper()
	controllertest.Eventually(w.TB, "there are Events", func(ctx context.Context) error {
		events := &eventsv1.EventList{}
		if err := cluster.Admin.List(ctx, events, client.InNamespace(key.Namespace)); err != nil {
			return err
		}
		missing := make(map[string]bool)
		for _, reason := range reasons {
			missing[reason] = true
		}
		for _, event := range events.Items {
			if event.Regarding.Name == key.Name && event.ReportingController == "tokenward.io/signingkey" {
				delete(missing, event.Reason)
			}
		}
		if len(missing) > 0 {
			return errMissing{missing}
		}
		return nil
	})
}

type errMissing struct{ reasons map[string]bool }

func (e errMissing) Error() string {
	text := "missing:"
	for reason := range e.reasons {
		text += " " + reason
	}
	return text
}

func TestTheAnnotationRotatesOncePerValue(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	old := w.sign(key)

	w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, api.RotateAnnotation, "monday") })
	w.states(key, api.KeyPublished, api.KeyActive)
	w.pass(key, defaultPublishBefore)
	w.states(key, api.KeyActive, api.KeyRetired)
	if err := w.verify(key, old); err != nil {
		t.Errorf("a token from before the rotation: %v", err)
	}
	w.pass(key, time.Hour)
	w.requests.Quiet(t, 300*time.Millisecond)
	w.states(key, api.KeyActive, api.KeyRetired)

	w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, api.RotateAnnotation, "tuesday") })
	w.states(key, api.KeyPublished, api.KeyActive, api.KeyRetired)
}

func TestAnotherAlgorithmRotates(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{Algorithm: "ES256"})
	w.ready(key, api.ReasonKeyActive)
	old := w.sign(key)
	w.change(key, func() { key.Spec.Algorithm = "EdDSA" })
	w.states(key, api.KeyPublished, api.KeyActive)
	w.pass(key, defaultPublishBefore)
	w.states(key, api.KeyActive, api.KeyRetired)
	if key.Status.Keys[0].Algorithm != "EdDSA" || key.Status.Keys[1].Algorithm != "ES256" {
		t.Errorf("keys %+v", key.Status.Keys)
	}
	if err := w.verify(key, old); err != nil {
		t.Errorf("a token of the old algorithm: %v", err)
	}
}

func TestARevokedActiveKeyIsReplacedAtOnce(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	old, revoked := w.sign(key), key.Status.ActiveKeyID

	w.change(key, func() { key.Spec.RevokedKeyIDs = []string{revoked} })
	w.ready(key, api.ReasonKeyActive)
	w.states(key, api.KeyActive)
	if key.Status.ActiveKeyID == revoked {
		t.Error("the revoked key still signs")
	}
	if reason, _ := token.ReasonOf(w.verify(key, old)); reason != token.KeyUnknown {
		t.Errorf("a token of the revoked key is refused with %q", reason)
	}
	if err := w.verify(key, w.sign(key)); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
	w.events(key, "KeyRevoked")
}

func TestARevokedRetiredKeyLeavesAndNothingElseChanges(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	old, revoked := w.sign(key), key.Status.ActiveKeyID
	w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, api.RotateAnnotation, "1") })
	w.states(key, api.KeyPublished, api.KeyActive)
	w.pass(key, defaultPublishBefore)
	w.states(key, api.KeyActive, api.KeyRetired)
	active := key.Status.ActiveKeyID

	w.change(key, func() { key.Spec.RevokedKeyIDs = []string{revoked, "never-existed"} })
	w.states(key, api.KeyActive)
	if key.Status.ActiveKeyID != active {
		t.Error("another key signs")
	}
	if reason, _ := token.ReasonOf(w.verify(key, old)); reason != token.KeyUnknown {
		t.Errorf("a token of the revoked key is refused with %q", reason)
	}
}

func TestDeletionTakesTheKeysAlong(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	policy := policyFor(w.namespace, "still-refers", "shop")
	if err := cluster.Admin.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Admin.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	meta := metav1.ObjectMeta{Namespace: controllertest.Namespace, Name: owned.KeyringName(key.UID)}
	for _, object := range []client.Object{key, &corev1.Secret{ObjectMeta: meta}, &corev1.ConfigMap{ObjectMeta: meta}} {
		controllertest.Eventually(t, "it is gone", func(ctx context.Context) error { return gone(ctx, object) })
	}

	again := w.create("shop", api.SigningKeySpec{})
	w.ready(again, api.ReasonKeyActive)
	if again.Status.ActiveKeyID == key.Status.ActiveKeyID {
		t.Error("a SigningKey of the same name has the old one's key")
	}
}

func policyFor(namespace, name, key string) *api.TokenPolicy {
	return &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: api.TokenPolicySpec{
			SigningKeyRef: api.SigningKeyReference{Name: key},
			Issuer:        "https://shop.example.com",
			Audiences:     []string{"shop"},
			Users:         api.Users{Secret: &api.SecretUsers{Name: "users"}},
		},
	}
}
