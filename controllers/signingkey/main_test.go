// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/token"
)

var cluster *controllertest.Cluster

func TestMain(m *testing.M) {
	os.Exit(controllertest.Run(m, &cluster, "controllers/signingkey", "controllers/tokenpolicy"))
}

// world is one tenant and the manager that serves it.
type world struct {
	testing.TB
	namespace string
	clock     *clocktesting.FakePassiveClock
	requests  *controllertest.Requests
	stop      func()
}

var epoch = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{TB: tb, namespace: cluster.Tenant(tb), clock: clocktesting.NewFakePassiveClock(epoch)}
	tb.Cleanup(w.forget)
	w.start()
	return w
}

func (w *world) start() {
	w.Helper()
	w.requests, w.stop = cluster.Manager(w.TB, func(mgr ctrl.Manager) error {
		return SetupWithManager(mgr, Options{Namespace: controllertest.Namespace, Clock: w.clock})
	})
}

// forget takes the tenant's keys away, so that the next test's manager has less to do.
func (w *world) forget() {
	keys := &api.SigningKeyList{}
	if err := cluster.Admin.List(context.Background(), keys, client.InNamespace(w.namespace)); err != nil {
		w.Error(err)
	}
	for i := range keys.Items {
		key := &keys.Items[i]
		key.Finalizers = nil
		_ = cluster.Admin.Update(context.Background(), key)
		_ = cluster.Admin.Delete(context.Background(), key)
	}
}

func (w *world) create(name string, spec api.SigningKeySpec) *api.SigningKey {
	w.Helper()
	key := &api.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Spec: spec}
	if err := cluster.Admin.Create(w.Context(), key); err != nil {
		w.Fatal(err)
	}
	return key
}

// change changes the object as somebody with kubectl would.
func (w *world) change(key *api.SigningKey, mutate func()) {
	w.Helper()
	before := key.DeepCopy()
	mutate()
	if err := cluster.Admin.Patch(w.Context(), key, client.MergeFrom(before)); err != nil {
		w.Fatal(err)
	}
}

// pass lets time pass, and has the controller look: its timer follows the real clock.
func (w *world) pass(key *api.SigningKey, d time.Duration) {
	w.Helper()
	w.clock.SetTime(w.clock.Now().Add(d))
	w.touch(key)
}

func (w *world) touch(key *api.SigningKey) {
	w.Helper()
	w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, "example.com/look", time.Now().String()) })
}

// ready waits for the Ready condition to have the reason, and for the report to be of
// what is stored.
func (w *world) ready(key *api.SigningKey, reason string) metav1.Condition {
	w.Helper()
	var ready metav1.Condition
	controllertest.Eventually(w.TB, "SigningKey "+key.Name+" is "+reason, func(ctx context.Context) error {
		if err := cluster.Admin.Get(ctx, client.ObjectKeyFromObject(key), key); err != nil {
			return err
		}
		condition := meta.FindStatusCondition(key.Status.Conditions, api.ConditionReady)
		if condition == nil || condition.Reason != reason || condition.ObservedGeneration != key.Generation {
			return fmt.Errorf("it is %+v", condition)
		}
		ready = *condition
		return nil
	})
	return ready
}

// states waits until the reported keys have these states, newest first.
func (w *world) states(key *api.SigningKey, want ...api.KeyState) {
	w.Helper()
	controllertest.Eventually(w.TB, fmt.Sprintf("the keys of %s are %v", key.Name, want), func(ctx context.Context) error {
		if err := cluster.Admin.Get(ctx, client.ObjectKeyFromObject(key), key); err != nil {
			return err
		}
		got := make([]api.KeyState, 0, len(key.Status.Keys))
		for _, k := range key.Status.Keys {
			got = append(got, k.State)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

// stored reads the ring from the Secret and from the public record.
func stored(ctx context.Context, key *api.SigningKey) (private, public *keyring.Ring, err error) {
	name := client.ObjectKey{Namespace: controllertest.Namespace, Name: owned.KeyringName(key.UID)}
	secret, record := &corev1.Secret{}, &corev1.ConfigMap{}
	if err := errors.Join(cluster.Admin.Get(ctx, name, secret), cluster.Admin.Get(ctx, name, record)); err != nil {
		return nil, nil, err
	}
	private, err1 := keyring.Parse(secret.Data[owned.KeyringKey])
	public, err2 := keyring.Parse([]byte(record.Data[owned.KeyringKey]))
	return private, public, errors.Join(err1, err2)
}

func (w *world) stored(key *api.SigningKey) (private, public *keyring.Ring) {
	w.Helper()
	private, public, err := stored(w.Context(), key)
	if err != nil {
		w.Fatal(err)
	}
	return private, public
}

// sign makes a token with the key that signs now.
func (w *world) sign(key *api.SigningKey) string {
	w.Helper()
	ring, _ := w.stored(key)
	active, ok := ring.Active()
	if !ok || active.Private == nil {
		w.Fatalf("no key signs: %+v", ring)
	}
	raw, err := active.Private.Sign(token.Claims{
		Issuer: "https://shop.example.com", Subject: "alice", Audience: []string{"shop"},
		IssuedAt: w.clock.Now(), ExpiresAt: w.clock.Now().Add(365 * 24 * time.Hour),
		ID: "t1", SessionID: "s1", ClientID: "shop/shop", Generation: 1,
	})
	if err != nil {
		w.Fatal(err)
	}
	return raw
}

// verify verifies a token against the public record, as everybody else does.
func (w *world) verify(key *api.SigningKey, raw string) error {
	w.Helper()
	_, public := w.stored(key)
	keys, err := public.KeySet()
	if err != nil {
		w.Fatal(err)
	}
	verifier := &token.Verifier{Keys: keys, Issuer: "https://shop.example.com", Audiences: []string{"shop"}}
	_, err = verifier.Verify(raw, w.clock.Now())
	return err
}

func gone(ctx context.Context, object client.Object) error {
	err := cluster.Admin.Get(ctx, client.ObjectKeyFromObject(object), object)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%T %s is still there (%w)", object, object.GetName(), err)
}
