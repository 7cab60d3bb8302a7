// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/token"
)

func TestRetention(t *testing.T) {
	policy := func(key string, ttl, idle, leeway time.Duration) api.TokenPolicy {
		d := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
		return api.TokenPolicy{Spec: api.TokenPolicySpec{
			SigningKeyRef: api.SigningKeyReference{Name: key}, Leeway: d(leeway),
			AccessToken: api.AccessToken{TTL: d(ttl)}, Refresh: api.Refresh{IdleTimeout: d(idle)},
		}}
	}
	tests := map[string]struct {
		policies []api.TokenPolicy
		want     time.Duration
	}{
		"no policy":                         {nil, 12*time.Hour + 5*time.Minute + 30*time.Second},
		"a policy of another key":           {[]api.TokenPolicy{policy("other", time.Hour, 100*time.Hour, 0)}, 12*time.Hour + 5*time.Minute + 30*time.Second},
		"one policy":                        {[]api.TokenPolicy{policy("shop", time.Minute, time.Hour, 10*time.Second)}, time.Hour + time.Minute + 10*time.Second},
		"the longest of several":            {[]api.TokenPolicy{policy("shop", time.Minute, 2*time.Hour, 0), policy("shop", 3*time.Hour, time.Minute, 0), policy("shop", time.Minute, time.Minute, time.Minute)}, 3*time.Hour + time.Minute},
		"a policy from before the defaults": {[]api.TokenPolicy{{Spec: api.TokenPolicySpec{SigningKeyRef: api.SigningKeyReference{Name: "shop"}}}}, 12*time.Hour + 5*time.Minute + 30*time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := retention(test.policies, "shop"); got != test.want {
				t.Errorf("retention %s, want %s", got, test.want)
			}
		})
	}
}

func TestWhenToLookAgain(t *testing.T) {
	tests := map[string]struct {
		recheck time.Duration
		imports bool
		want    time.Duration
	}{
		"nothing is due":               {0, false, time.Hour},
		"soon":                         {5 * time.Minute, false, 5 * time.Minute},
		"in a month":                   {720 * time.Hour, false, time.Hour},
		"an import and nothing is due": {0, true, time.Minute},
		"an import and something soon": {time.Second, true, time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := wait(test.recheck, test.imports); got != test.want {
				t.Errorf("again in %s, want %s", got, test.want)
			}
		})
	}
}

// TestReconcileAsksToBeCalledAgain calls the reconciler itself, as the other tests'
// clock does not drive the queue.
func TestReconcileAsksToBeCalledAgain(t *testing.T) {
	w := newWorld(t)
	key := w.create("shop", api.SigningKeySpec{})
	w.ready(key, api.ReasonKeyActive)
	w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, api.RotateAnnotation, "1") })
	w.states(key, api.KeyPublished, api.KeyActive)
	w.stop()
	w.clock.SetTime(epoch.Add(time.Minute))
	r := &reconciler{client: cluster.Admin, live: cluster.Admin, options: Options{Namespace: controllertest.Namespace, Clock: w.clock}}
	result, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(key)})
	if err != nil || result.RequeueAfter != defaultPublishBefore-time.Minute {
		t.Errorf("again in %s (%v), want %s", result.RequeueAfter, err, defaultPublishBefore-time.Minute)
	}
}

func generate(tb testing.TB) *token.PrivateKey {
	tb.Helper()
	key, err := token.GenerateKey("EdDSA", 0)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func ringOf(version int64, keys ...keyring.Key) *keyring.Ring {
	return &keyring.Ring{Owner: "uid", Version: version, Keys: keys}
}

// TestWhatANewerReleaseWroteIsNotRecovered: an upgrade that was taken back must not make
// a new key out of keys that are only not understood.
func TestWhatANewerReleaseWroteIsNotRecovered(t *testing.T) {
	ring := ringOf(1, keyring.Key{Public: generate(t).Public(), State: keyring.Active})
	public, err := ring.MarshalPublic()
	if err != nil {
		t.Fatal(err)
	}
	newer := []byte(`{"format": 2, "owner": "uid", "keys": {"of": "another form"}}`)
	for name, test := range map[string]struct{ secret, record []byte }{
		"the Secret":          {newer, public},
		"the record":          {public, newer},
		"the Secret, alone":   {newer, nil},
		"both":                {newer, newer},
		"a record, no Secret": {nil, newer},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scope{key: &api.SigningKey{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "uid"}}}
			if test.secret != nil {
				s.secret = &corev1.Secret{Data: map[string][]byte{owned.KeyringKey: test.secret}}
			}
			if test.record != nil {
				s.record = &corev1.ConfigMap{Data: map[string]string{owned.KeyringKey: string(test.record)}}
			}
			if private, public, err := s.stored(); !errors.Is(err, keyring.ErrNewerFormat) || private != nil || public != nil {
				t.Errorf("goes on from %v, %v: %v", private, public, err)
			}
		})
	}
}

// TestTheRingToGoOnFrom: which keys there are comes from the newer document, private
// halves from the Secret.
func TestTheRingToGoOnFrom(t *testing.T) {
	a, b := generate(t), generate(t)
	private := func(key *token.PrivateKey, state keyring.State) keyring.Key {
		return keyring.Key{Public: key.Public(), Private: key, State: state}
	}
	public := func(key *token.PrivateKey, state keyring.State) keyring.Key {
		return keyring.Key{Public: key.Public(), State: state}
	}
	tests := map[string]struct {
		secret, record *keyring.Ring
		version        int64
		keys           map[string]bool // id → with private half
	}{
		"nothing":                          {nil, nil, 0, map[string]bool{}},
		"the Secret alone":                 {ringOf(1, private(a, keyring.Active)), nil, 1, map[string]bool{a.Public().ID: true}},
		"the record alone":                 {nil, ringOf(1, public(a, keyring.Active)), 1, map[string]bool{a.Public().ID: false}},
		"the same version":                 {ringOf(1, private(a, keyring.Active)), ringOf(1, public(a, keyring.Active)), 1, map[string]bool{a.Public().ID: true}},
		"a Secret that was written last":   {ringOf(2, private(b, keyring.Published), private(a, keyring.Active)), ringOf(1, public(a, keyring.Active)), 2, map[string]bool{a.Public().ID: true, b.Public().ID: true}},
		"a Secret from a backup":           {ringOf(1, private(a, keyring.Active)), ringOf(3, public(b, keyring.Active)), 3, map[string]bool{b.Public().ID: false}},
		"a backup that still has the half": {ringOf(1, private(a, keyring.Active)), ringOf(3, public(b, keyring.Published), public(a, keyring.Active)), 3, map[string]bool{a.Public().ID: true, b.Public().ID: false}},
		"a backup of a retired key":        {ringOf(1, private(a, keyring.Active)), ringOf(3, public(b, keyring.Active), public(a, keyring.Retired)), 3, map[string]bool{a.Public().ID: false, b.Public().ID: false}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ring := newer("uid", test.secret, test.record)
			if ring.Owner != "uid" || ring.Version != test.version || len(ring.Keys) != len(test.keys) {
				t.Errorf("ring %+v", ring)
			}
			for _, key := range ring.Keys {
				if half, known := test.keys[key.Public.ID]; !known || half != (key.Private != nil) {
					t.Errorf("key %s: private half %v", key.Public.ID, key.Private != nil)
				}
			}
		})
	}
}

func TestAKeyThatWasNeverPublishedGetsItsWholeTime(t *testing.T) {
	a, b := generate(t), generate(t)
	ring := ringOf(2,
		keyring.Key{Public: b.Public(), Private: b, State: keyring.Published, PublishedAt: epoch, ActiveFrom: epoch.Add(time.Minute)},
		keyring.Key{Public: a.Public(), Private: a, State: keyring.Active, ActiveFrom: epoch},
	)
	postpone(ring, ringOf(2, ring.Keys...), epoch.Add(time.Hour), 5*time.Minute)
	if !ring.Keys[0].ActiveFrom.Equal(epoch.Add(time.Minute)) {
		t.Errorf("a key that is in the public record signs from %s", ring.Keys[0].ActiveFrom)
	}
	postpone(ring, ringOf(1, ring.Keys[1]), epoch.Add(time.Hour), 5*time.Minute)
	if !ring.Keys[0].ActiveFrom.Equal(epoch.Add(time.Hour + 5*time.Minute)) {
		t.Errorf("a key that nobody was told signs from %s", ring.Keys[0].ActiveFrom)
	}
	if !ring.Keys[1].ActiveFrom.Equal(epoch) {
		t.Error("the active key is postponed")
	}
}
