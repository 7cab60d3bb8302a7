// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/configmap"
)

// lostKey is a world in which alice's session is sealed with a key that was lost since,
// and bob's with the one that came after it.
type lostKey struct {
	*world
	*issuer
	sealer     *configmap.Sealer
	first      map[string][]byte
	alice, bob session.Session
}

func newLostKey(t *testing.T) *lostKey {
	t.Helper()
	l := &lostKey{first: configmap.AddSealingKey(nil)}
	var err error
	if l.sealer, err = configmap.NewSealer(l.first); err != nil {
		t.Fatal(err)
	}
	l.world = newWorld(t, func(w *world) func() session.Store {
		return func() session.Store {
			store, err := configmap.New(configmap.Config{
				Client: server.shards, Namespace: w.policy.Namespace, Policy: session.PolicyID(w.policy.UID),
				OwnerNamespace: w.policy.Namespace, OwnerName: w.policy.Name,
				Shards: 1, MaxSessions: 100, Sealer: l.sealer, Now: w.clock.Now,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			return store
		}
	})
	before := l.world.issuer()
	l.alice = l.login(before.store, "alice", l.clock.Now())
	if err := l.sealer.Update(configmap.AddSealingKey(nil)); err != nil {
		t.Fatal(err)
	}
	l.issuer = l.world.issuer() // one that was started since
	l.bob = l.login(l.store, "bob", l.clock.Now())
	return l
}

func TestARecordThatCannotBeOpenedIsNamed(t *testing.T) {
	for name, heal := range map[string]func(*lostKey, *corev1.ConfigMap, string){
		"the key comes back": func(l *lostKey, _ *corev1.ConfigMap, _ string) {
			both := configmap.AddSealingKey(l.first)
			if err := l.sealer.Update(both); err != nil {
				l.t.Fatal(err)
			}
		},
		"the record is deleted, by the commands of the page": func(l *lostKey, shard *corev1.ConfigMap, key string) {
			patch := client.RawPatch("application/json-patch+json", []byte(`[{"op":"remove","path":"/binaryData/`+key+`"}]`))
			if err := server.Patch(l.t.Context(), shard, patch); err != nil {
				l.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLostKey(t)
			l.order(api.RevokeSubjectAnnotation, "bob")
			l.look(l.issuer)
			got := l.want(api.RevokeSubject, "bob", api.RevocationInProgress, 1)
			if l.alive(l.store, l.bob) != "" {
				t.Error("what can be read is not revoked")
			}
			shard, key := l.named(got.Message)
			for _, want := range []string{"1 cannot be opened", configmap.SecretName, "docs/operations.md"} {
				if !strings.Contains(got.Message, want) {
					t.Errorf("message %q lacks %q", got.Message, want)
				}
			}
			if strings.Contains(got.Message, string(l.alice.ID)) || len(got.Message) > maxValue {
				t.Errorf("message of %d bytes: %q", len(got.Message), got.Message)
			}
			if events := l.events.of(RevocationDelayed); len(events) != 1 || !strings.Contains(events[0], key) || len(events[0]) > 1024+len(RevocationDelayed)+2 {
				t.Errorf("events %q", events)
			}
			// It is the same for as long as nothing is done about it.
			l.clock.pass(settle)
			for range 3 {
				l.clock.pass(l.look(l.issuer))
			}
			if again := l.want(api.RevokeSubject, "bob", api.RevocationInProgress, 1); again.Message != got.Message {
				t.Errorf("message %q, then %q", got.Message, again.Message)
			}
			heal(l, shard, key)
			l.clock.pass(lastDelay)
			l.look(l.issuer)
			l.want(api.RevokeSubject, "bob", api.RevocationCompleted, 1)
		})
	}
}

// named is the record that a message names, which must be there.
func (l *lostKey) named(message string) (*corev1.ConfigMap, string) {
	l.t.Helper()
	shards := &corev1.ConfigMapList{}
	if err := server.List(l.t.Context(), shards, client.InNamespace(l.policy.Namespace)); err != nil {
		l.t.Fatal(err)
	}
	for i := range shards.Items {
		shard := &shards.Items[i]
		for key := range shard.BinaryData {
			if strings.Contains(message, "ConfigMap "+shard.Namespace+"/"+shard.Name+" key "+key) {
				return shard, key
			}
		}
	}
	l.t.Fatalf("message %q names no record that there is", message)
	return nil, ""
}

// Otherwise nobody's sessions could be ended until somebody mends what may never be mended.
func TestARecordThatCannotBeOpenedDoesNotHoldUpTheNextOrder(t *testing.T) {
	for name, waits := range map[string]time.Duration{"at once": 0, "after the second sweep": 3 * settle} {
		t.Run(name, func(t *testing.T) {
			l := newLostKey(t)
			l.order(api.RevokeSubjectAnnotation, "carol")
			l.look(l.issuer)
			l.clock.pass(waits)
			l.look(l.issuer)
			l.order(api.RevokeSubjectAnnotation, "bob")
			l.look(l.issuer)
			l.want(api.RevokeSubject, "bob", api.RevocationInProgress, 1)
			if l.alive(l.store, l.bob) != "" {
				t.Error("bob's session goes on")
			}
			// The one before is given up, and somebody is told.
			l.clock.pass(3 * settle)
			l.look(l.issuer)
			told := false
			for _, event := range l.events.of(RevocationDelayed) {
				told = told || strings.Contains(event, "is given up")
			}
			if !told {
				t.Errorf("events %q", l.events.of(RevocationDelayed))
			}
			l.remove(api.RevokeSubjectAnnotation)
			l.look(l.issuer)
			l.want(api.RevokeSubject, "", "", 0)
			l.clock.pass(3 * settle)
			calls := 0
			for range 3 {
				l.look(l.issuer)
				l.clock.pass(lastDelay)
				if calls == 0 {
					calls = l.store.calls()
				}
			}
			if l.store.calls() != calls {
				t.Error("an order that nobody can see any more goes on for ever")
			}
		})
	}
}
