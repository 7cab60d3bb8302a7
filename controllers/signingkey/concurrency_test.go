// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/keyring"
)

// TestACrashAtEveryStep has a manager lose the API server before, or after, each
// write of a creation, a publication and an activation, and has a fresh manager go on
// from what is left.
func TestACrashAtEveryStep(t *testing.T) {
	stages := []struct {
		name   string
		writes int
	}{{"creation", 4}, {"publication", 3}, {"activation", 3}}
	for stage, s := range stages {
		for _, fault := range []controllertest.Fault{controllertest.Before, controllertest.After} {
			for write := 1; write <= s.writes; write++ {
				t.Run(fmt.Sprintf("%s, write %d, fault %d", s.name, write, fault), func(t *testing.T) {
					crash(t, stage, write, fault)
				})
			}
		}
	}
}

func crash(t *testing.T, stage, write int, fault controllertest.Fault) {
	t.Helper()
	w := newWorld(t)
	at := func(now int, act func()) {
		if now != stage {
			act()
			return
		}
		w.requests.Quiet(t, 100*time.Millisecond)
		w.requests.Inject(func(n int) controllertest.Fault {
			switch {
			case n < write:
				return controllertest.None
			case n == write:
				return fault
			default:
				return controllertest.Before // it reaches nothing any more
			}
		})
		act()
		controllertest.Eventually(t, "the fault hits", func(context.Context) error {
			if n := len(w.requests.Writes()); n < write {
				return fmt.Errorf("%d writes", n)
			}
			return nil
		})
		w.stop()
		w.start()
	}

	var key *api.SigningKey
	at(0, func() { key = w.create("shop", api.SigningKeySpec{Algorithm: "EdDSA"}) })
	w.ready(key, api.ReasonKeyActive)
	w.states(key, api.KeyActive)
	old := w.sign(key)
	at(1, func() {
		w.change(key, func() { metav1.SetMetaDataAnnotation(&key.ObjectMeta, api.RotateAnnotation, "1") })
	})
	w.states(key, api.KeyPublished, api.KeyActive)
	at(2, func() { w.pass(key, defaultPublishBefore) })
	w.states(key, api.KeyActive, api.KeyRetired)
	w.ready(key, api.ReasonKeyActive)
	w.requests.Quiet(t, 100*time.Millisecond)

	private, public := w.stored(key)
	if a, b := publicDocument(t, private), publicDocument(t, public); a != b {
		t.Errorf("the record is not that of the Secret:\n%s\n%s", a, b)
	}
	if err := w.verify(key, old); err != nil {
		t.Errorf("a token from before: %v", err)
	}
}

func publicDocument(tb testing.TB, ring *keyring.Ring) string {
	tb.Helper()
	document, err := ring.MarshalPublic()
	if err != nil {
		tb.Fatal(err)
	}
	return string(document)
}

// TestTwoManagersMakeOneKey has two managers do everything at once, as when an old
// leader has not noticed yet that it lost the lease. Every version of every Secret is
// watched: no key may ever be in one and then not be there.
func TestTwoManagersMakeOneKey(t *testing.T) {
	w := newWorld(t)
	first := w.requests
	w.start()
	seen := w.watchSecrets()

	const n = 20
	keys := make([]*api.SigningKey, n)
	for i := range keys {
		keys[i] = w.create(fmt.Sprintf("shop-%d", i), api.SigningKeySpec{})
	}
	for _, key := range keys {
		w.ready(key, api.ReasonKeyActive)
	}
	w.clock.SetTime(epoch.Add(defaultInterval - defaultPublishBefore))
	for _, key := range keys {
		w.touch(key)
	}
	for _, key := range keys {
		w.states(key, api.KeyPublished, api.KeyActive)
	}
	w.clock.SetTime(epoch.Add(defaultInterval))
	for _, key := range keys {
		w.touch(key)
	}
	for _, key := range keys {
		w.states(key, api.KeyActive, api.KeyRetired)
	}
	first.Quiet(t, 300*time.Millisecond)
	w.requests.Quiet(t, 300*time.Millisecond)
	if len(first.Writes()) == 0 || len(w.requests.Writes()) == 0 {
		t.Error("one of the managers did nothing: the test shows nothing")
	}
	for _, key := range keys {
		if ids := seen.of(owned.KeyringName(key.UID)); len(ids) != 2 {
			t.Errorf("one rotation of %s had the keys %v", key.Name, ids)
		}
	}
}

// sightings are the ids of all keys that were ever in a Secret.
type sightings struct {
	mu  sync.Mutex
	ids map[string]map[string]bool
}

func (s *sightings) of(secret string) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[secret]
}

func (w *world) watchSecrets() *sightings {
	w.Helper()
	watcher, err := client.NewWithWatch(cluster.Config(), client.Options{Scheme: controllers.Scheme()})
	if err != nil {
		w.Fatal(err)
	}
	stream, err := watcher.Watch(w.Context(), &corev1.SecretList{}, client.InNamespace(controllertest.Namespace))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(stream.Stop)
	s := &sightings{ids: make(map[string]map[string]bool)}
	go func() {
		for event := range stream.ResultChan() {
			secret, ok := event.Object.(*corev1.Secret)
			if !ok {
				continue
			}
			ring, err := keyring.Parse(secret.Data[owned.KeyringKey])
			if err != nil {
				continue
			}
			s.mu.Lock()
			if s.ids[secret.Name] == nil {
				s.ids[secret.Name] = make(map[string]bool)
			}
			for _, key := range ring.Keys {
				s.ids[secret.Name][key.Public.ID] = true
			}
			s.mu.Unlock()
		}
	}()
	return s
}
