// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/token"
)

// deleteStored deletes the Secret or the record.
func (w *world) deleteStored(key *api.SigningKey, object client.Object) {
	w.Helper()
	object.SetNamespace(controllertest.Namespace)
	object.SetName(owned.KeyringName(key.UID))
	if err := cluster.Admin.Delete(w.Context(), object); err != nil {
		w.Fatal(err)
	}
}

func TestALostSecretIsRecovered(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	lost, old := key.Status.ActiveKeyID, w.sign(key)
	_, before := w.stored(key)

	w.deleteStored(key, &corev1.Secret{})
	condition := w.ready(key, api.ReasonKeyRecovered)
	if condition.Status != metav1.ConditionTrue || !strings.Contains(condition.Message, "still verify") {
		t.Errorf("the condition %+v", condition)
	}
	w.states(key, api.KeyActive, api.KeyRetired)
	if key.Status.ActiveKeyID == lost {
		t.Error("the lost key is said to sign")
	}
	for what, raw := range map[string]string{"before the loss": old, "after it": w.sign(key)} {
		if err := w.verify(key, raw); err != nil {
			t.Errorf("a token from %s: %v", what, err)
		}
	}
	if _, after := w.stored(key); after.Version <= before.Version {
		t.Errorf("the key set went from version %d to %d", before.Version, after.Version)
	}
	w.events(key, "KeyLost", "KeyRecovered")

	// It says so until the next rotation.
	w.touch(key)
	w.requests.Quiet(t, 300*time.Millisecond)
	w.ready(key, api.ReasonKeyRecovered)
	w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, api.RotateAnnotation, "1") })
	w.states(key, api.KeyPublished, api.KeyActive, api.KeyRetired)
	w.pass(key, defaultPublishBefore)
	w.ready(key, api.ReasonKeyActive)
}

func TestAnUnreadableSecretIsRecovered(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	old := w.sign(key)
	secret := &corev1.Secret{}
	if err := cluster.Admin.Get(t.Context(), client.ObjectKey{Namespace: controllertest.Namespace, Name: owned.KeyringName(key.UID)}, secret); err != nil {
		t.Fatal(err)
	}
	secret.Data[owned.KeyringKey] = []byte("{")
	if err := cluster.Admin.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.ready(key, api.ReasonKeyRecovered)
	if err := w.verify(key, old); err != nil {
		t.Errorf("a token from before: %v", err)
	}
}

func TestALostRecordIsWrittenAgain(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	_, before := w.stored(key)
	w.deleteStored(key, &corev1.ConfigMap{})
	controllertest.Eventually(t, "the record is back", func(ctx context.Context) error {
		_, after, err := stored(ctx, key)
		if err == nil && after.Version != before.Version {
			err = fmt.Errorf("version %d, was %d", after.Version, before.Version)
		}
		return err
	})
	w.ready(key, api.ReasonKeyActive)
}

// behind is a cache that has not heard of anything that came after key.
type behind struct {
	client.Client
	key *api.SigningKey
}

func (b behind) Get(ctx context.Context, name client.ObjectKey, into client.Object, options ...client.GetOption) error {
	if key, ok := into.(*api.SigningKey); ok {
		b.key.DeepCopyInto(key)
		return nil
	}
	return b.Client.Get(ctx, name, into, options...)
}

func TestASigningKeyThatIsGoneGetsNoKeyFromACacheThatIsBehind(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	before := key.DeepCopy()
	if err := cluster.Admin.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "the SigningKey is gone", func(ctx context.Context) error { return gone(ctx, key) })
	w.stop()
	r := &reconciler{client: behind{cluster.Admin, before}, live: cluster.Admin, options: Options{Namespace: controllertest.Namespace, Clock: w.clock}}
	if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(before)}); err != nil {
		t.Error(err)
	}
	left := metav1.ObjectMeta{Namespace: controllertest.Namespace, Name: owned.KeyringName(before.UID)}
	if err := gone(t.Context(), &corev1.Secret{ObjectMeta: left}); err != nil {
		t.Errorf("a private key that nobody will ever delete: %v", err)
	}
}

func TestWhenAllIsLostTheVersionStillRises(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	_, before := w.stored(key)
	w.stop()
	w.deleteStored(key, &corev1.Secret{})
	w.deleteStored(key, &corev1.ConfigMap{})
	w.clock.SetTime(epoch.Add(time.Minute))
	w.start()
	controllertest.Eventually(t, "there is a new ring", func(ctx context.Context) error {
		_, after, err := stored(ctx, key)
		if err == nil && after.Version <= before.Version {
			t.Fatalf("the key set went from version %d to %d: no verifier would take it", before.Version, after.Version)
		}
		return err
	})
}

// A Secret from a backup may hold keys that were revoked since.
func TestARemovedKeyDoesNotReturnFromABackup(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	revoked, old := key.Status.ActiveKeyID, w.sign(key)
	name := client.ObjectKey{Namespace: controllertest.Namespace, Name: owned.KeyringName(key.UID)}
	backup := &corev1.Secret{}
	if err := cluster.Admin.Get(t.Context(), name, backup); err != nil {
		t.Fatal(err)
	}
	w.change(key, func() { key.Spec.RevokedKeyIDs = []string{revoked} })
	w.ready(key, api.ReasonKeyActive)
	w.change(key, func() { key.Spec.RevokedKeyIDs = nil })
	w.ready(key, api.ReasonKeyActive)

	restored := &corev1.Secret{}
	if err := cluster.Admin.Get(t.Context(), name, restored); err != nil {
		t.Fatal(err)
	}
	restored.Data = backup.Data
	if err := cluster.Admin.Update(t.Context(), restored); err != nil {
		t.Fatal(err)
	}
	w.ready(key, api.ReasonKeyRecovered)
	if reason, _ := token.ReasonOf(w.verify(key, old)); reason != token.KeyUnknown {
		t.Errorf("a token of the revoked key is refused with %q", reason)
	}
	private, _ := w.stored(key)
	for _, k := range private.Keys {
		if k.Public.ID == revoked {
			t.Error("the revoked key is back")
		}
	}
}

func TestLabelsThatWereTakenAwayComeBack(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	active := key.Status.ActiveKeyID
	name := client.ObjectKey{Namespace: controllertest.Namespace, Name: owned.KeyringName(key.UID)}
	for _, object := range []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}} {
		if err := cluster.Admin.Get(t.Context(), name, object); err != nil {
			t.Fatal(err)
		}
		object.SetLabels(map[string]string{"mine": "stays"})
		if err := cluster.Admin.Update(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		controllertest.Eventually(t, "the labels are back", func(ctx context.Context) error {
			if err := cluster.Admin.Get(ctx, name, object); err != nil {
				return err
			}
			if !owned.Carries(object, owned.Labels(owned.SigningKey, key)) || object.GetLabels()["mine"] != "stays" {
				return fmt.Errorf("%T has %v", object, object.GetLabels())
			}
			return nil
		})
	}
	w.ready(key, api.ReasonKeyActive)
	if key.Status.ActiveKeyID != active {
		t.Error("another key signs, although nothing was lost")
	}
}

func TestAtRestNothingIsWritten(t *testing.T) {
	w := newWorld(t)
	const n = 20
	keys := make([]*api.SigningKey, n)
	for i := range keys {
		keys[i] = w.create(fmt.Sprintf("shop-%d", i), api.SigningKeySpec{})
	}
	for _, key := range keys {
		w.ready(key, api.ReasonKeyActive)
	}
	w.requests.Quiet(t, 500*time.Millisecond)
	perKey := float64(len(w.requests.Writes())) / n
	t.Logf("%.1f writes for a new SigningKey", perKey)
	if perKey > 5 { // finalizer, Secret, record, status, and one to spare
		t.Errorf("%.1f writes for a new SigningKey: %v", perKey, w.requests.Writes()[:10])
	}

	w.stop()
	w.start() // as after an upgrade
	w.requests.Quiet(t, time.Second)
	w.touch(keys[0])
	w.requests.Quiet(t, 500*time.Millisecond)
	if writes := w.requests.Writes(); len(writes) != 0 {
		t.Errorf("a restart writes, although nothing changed: %v", writes)
	}
}
