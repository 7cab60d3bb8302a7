// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/attempts/countertest"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
)

func TestCounter(t *testing.T) {
	openOf := func(tb testing.TB, o storetest.Options) *Store {
		tb.Helper()
		config := testConfig(tb)
		config.Policy, config.MaxSessions, config.Now, config.WritesPerSecond = o.Policy, o.MaxSessions, o.Now, 1000
		return open(tb, config)
	}
	countertest.Run(t, countertest.Backend{
		Open: func(tb testing.TB, o storetest.Options) attempts.Counter {
			tb.Helper()
			return openOf(tb, o)
		},
		Kept: func(tb testing.TB, o storetest.Options) int {
			tb.Helper()
			store := openOf(tb, o)
			if err := store.awaitSync(tb.Context()); err != nil {
				tb.Fatal(err)
			}
			if err := store.Sweep(tb.Context()); err != nil {
				tb.Fatal(err)
			}
			return len(tableOf(tb, store))
		},
	})
}

// tableOf is the table as it is at the server.
func tableOf(tb testing.TB, store *Store) table {
	tb.Helper()
	c, err := store.readers[store.attemptsShard()].read(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	e := c.entries[attemptsKey]
	if e == nil || e.err != nil {
		tb.Fatalf("the table cannot be read: %+v", e)
	}
	return e.table
}

var testLimit = attempts.Limit{Burst: 5, Interval: 10 * time.Minute}

func keyOf(config *Config, account int) attempts.Key {
	return attempts.NewKey(string(config.Policy), "account", strconv.Itoa(account))
}

func mustTake(tb testing.TB, store *Store, key attempts.Key) time.Duration {
	tb.Helper()
	wait, err := store.Take(tb.Context(), key, testLimit)
	if err != nil {
		tb.Fatal(err)
	}
	return wait
}

// attemptsObject is the ConfigMap with the table.
func attemptsObject(tb testing.TB, store *Store) *corev1.ConfigMap {
	tb.Helper()
	cm := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: testNamespace, Name: "attempts-" + string(store.config.Policy)}
	if err := store.config.Client.Get(tb.Context(), key, cm); err != nil {
		tb.Fatal(err)
	}
	return cm
}

func TestAReaderOfConfigMapsLearnsNothingOfAttempts(t *testing.T) {
	config := testConfig(t)
	store := open(t, config)
	key := keyOf(&config, 1)
	mustTake(t, store, key)
	cm := attemptsObject(t, store)
	raw, err := base64.RawURLEncoding.DecodeString(string(key))
	if err != nil {
		t.Fatal(err)
	}
	shown := bytes.Join(append(values(cm), []byte(fmt.Sprint(cm.ObjectMeta, cm.Data))), nil)
	if bytes.Contains(shown, raw) || bytes.Contains(shown, []byte(key)) {
		t.Error("the ConfigMap shows a key")
	}
	// By these the manager deletes it together with the sessions.
	if cm.Labels["tokenward.io/component"] != "sessions" || cm.Labels["tokenward.io/policy-uid"] != string(config.Policy) {
		t.Errorf("labels: %v", cm.Labels)
	}
}

func TestAKeyThatIsNone(t *testing.T) {
	store := open(t, testConfig(t))
	for _, key := range []attempts.Key{"", "alice", attempts.NewKey("p", "k", "v") + "A", attempts.NewKey("p", "k", "v")[1:]} {
		if _, err := store.Take(t.Context(), key, testLimit); !errors.Is(err, errNoKey) {
			t.Errorf("take of %q: %v", key, err)
		}
		if err := store.GiveBack(t.Context(), key, testLimit); !errors.Is(err, errNoKey) {
			t.Errorf("give back of %q: %v", key, err)
		}
	}
}

func TestAttemptsTakeNoRoomFromSessions(t *testing.T) {
	config := testConfig(t)
	config.MaxSessions, config.WritesPerSecond = 2, 500
	store := open(t, config)
	for i := range 30 {
		mustTake(t, store, keyOf(&config, i))
	}
	createSession(t, store)
	mustTake(t, store, keyOf(&config, 31))
	createSession(t, store)
	mustTake(t, store, keyOf(&config, 32))
	await(t, "two sessions are counted", func() bool { return store.Stats().Sessions == 2 })
	if err := store.Create(t.Context(), newSession(config.Policy, time.Now())); !errors.Is(err, session.ErrFull) {
		t.Errorf("a third session of two: %v", err)
	}
}

func TestBeingRefusedWritesNothing(t *testing.T) {
	config := testConfig(t)
	config.WritesPerSecond = 500
	store := open(t, config)
	for range testLimit.Burst {
		mustTake(t, store, keyOf(&config, 1))
	}
	before := store.Stats().Writes
	for range 20 {
		if mustTake(t, store, keyOf(&config, 1)) == 0 {
			t.Fatal("there was one more attempt")
		}
	}
	if n := store.Stats().Writes - before; n != 0 {
		t.Errorf("20 refusals made %d writes", n)
	}
}

// TestLostAnswersOfAttempts lets every second write be made and its answer be lost.
func TestLostAnswersOfAttempts(t *testing.T) {
	var count atomic.Int64
	config := testConfig(t)
	config.WritesPerSecond = 500
	config.Client = faulty(t, func(write func() error) error {
		err := write()
		if count.Add(1)%2 == 1 && err == nil {
			return errors.New("the connection was cut")
		}
		return err
	})
	store := open(t, config)
	made := 0
	for range 3 * testLimit.Burst {
		if mustTake(t, store, keyOf(&config, 1)) == 0 {
			made++
		}
	}
	if made == 0 || made > testLimit.Burst {
		t.Errorf("%d attempts of %d", made, testLimit.Burst)
	}
}

func TestATableThatCannotBeReadIsBegunAnew(t *testing.T) {
	otherKeys := AddSealingKey(nil)
	tests := map[string]func(t *testing.T, at place, sealed, plain []byte) []byte{
		"one bit changed":       func(_ *testing.T, _ place, sealed, _ []byte) []byte { sealed[len(sealed)-5] ^= 1; return sealed },
		"empty":                 func(*testing.T, place, []byte, []byte) []byte { return []byte{} },
		"sealed in a newer way": func(_ *testing.T, _ place, sealed, _ []byte) []byte { sealed[0] = sealVersion + 1; return sealed },
		"in a newer format": func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			plain[0] = tableFormat + 1
			return newTestSealer(t).seal(at, plain)
		},
		"sealed by us and no table": func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			return newTestSealer(t).seal(at, append(plain, 1))
		},
		"of another policy": func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			at.policy += "x"
			return newTestSealer(t).seal(at, plain)
		},
		"sealed with a key that we do not have": func(t *testing.T, at place, _, plain []byte) []byte {
			t.Helper()
			sealer, err := NewSealer(otherKeys)
			if err != nil {
				t.Fatal(err)
			}
			return sealer.seal(at, plain)
		},
	}
	for name, forge := range tests {
		t.Run("a table "+name, func(t *testing.T) {
			var log strings.Builder
			config := testConfig(t)
			config.WritesPerSecond = 500
			config.Log = funcr.New(func(prefix, args string) { log.WriteString(prefix + args + "\n") }, funcr.Options{})
			store := open(t, config)
			for range testLimit.Burst {
				mustTake(t, store, keyOf(&config, 1))
			}
			cm := attemptsObject(t, store)
			at := place{policy: string(config.Policy), shard: config.Shards, key: attemptsKey}
			plain, err := config.Sealer.open(at, cm.BinaryData[attemptsKey])
			if err != nil {
				t.Fatal(err)
			}
			cm.BinaryData[attemptsKey] = forge(t, at, bytes.Clone(cm.BinaryData[attemptsKey]), plain)
			cm.BinaryData["of-a-later-release"] = []byte("not to be touched")
			edit(t, store, cm)
			await(t, "they are noticed", func() bool { return store.Stats().Unreadable == 2 })

			for i := range testLimit.Burst {
				if wait := mustTake(t, store, keyOf(&config, 1)); wait != 0 {
					t.Fatalf("attempt %d has to wait for %s", i+1, wait)
				}
			}
			if mustTake(t, store, keyOf(&config, 1)) == 0 {
				t.Error("the new table has no limit")
			}
			if left := attemptsObject(t, store).BinaryData["of-a-later-release"]; string(left) != "not to be touched" {
				t.Errorf("what another release keeps there became %q", left)
			}
			await(t, "one is left", func() bool { return store.Stats().Unreadable == 1 })
			_ = store.Close()
			if lines := strings.Count(log.String(), "cannot read the counted attempts, they start anew"); lines != 2 {
				t.Errorf("log:\n%s", log.String())
			}
		})
	}
}

// TestAFloodOfGuessesIsBounded guesses while sessions are refreshed, and counts at the server's door.
func TestAFloodOfGuessesIsBounded(t *testing.T) {
	const permitted = 50
	var mu sync.Mutex
	var all, ofAttempts []time.Time
	var writing sync.Map
	config := testConfig(t)
	config.Shards, config.WritesPerSecond = 16, permitted
	around := func(object client.Object, write func() error) error {
		mu.Lock()
		all = append(all, time.Now())
		if strings.HasPrefix(object.GetName(), "attempts-") {
			ofAttempts = append(ofAttempts, time.Now())
		}
		mu.Unlock()
		if _, other := writing.LoadOrStore(object.GetName(), true); other {
			t.Error("two writes of one ConfigMap at once by one instance")
		}
		defer writing.Delete(object.GetName())
		return write()
	}
	config.Client = interceptor.NewClient(newClient(t), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return around(o, func() error { return c.Create(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return around(o, func() error { return c.Update(ctx, o, opts...) })
		},
	})
	store := open(t, config)
	var group sync.WaitGroup
	guesses, stop := atomic.Int64{}, make(chan struct{})
	for worker := range 200 {
		group.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				account := worker*1000 + n // a new one each time, or one for all
				if worker%2 == 0 {
					account = 1
				}
				if _, err := store.Take(t.Context(), keyOf(&config, account), testLimit); err != nil {
					t.Errorf("take: %v", err)
					return
				}
				guesses.Add(1)
			}
		})
	}
	var refreshes sync.WaitGroup
	for range 50 {
		refreshes.Go(func() {
			found := createSession(t, store)
			var err error
			for err == nil && found.Generation < 6 {
				found, err = store.Swap(t.Context(), rotate(found, time.Now()))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	refreshes.Wait()
	// Nobody else writes now, and still the share is not exceeded.
	alone := store.Stats().Writes
	await(t, "the flood goes on", func() bool { return store.Stats().Writes >= alone+20 })
	close(stop)
	group.Wait()
	if most := mostInASecond(all); most > permitted {
		t.Errorf("%d writes in one second", most)
	}
	if most := mostInASecond(ofAttempts); most > permitted*attemptsShare {
		t.Errorf("%d writes of attempts in one second, their share is %v", most, permitted*attemptsShare)
	}
	t.Logf("%d guesses in %d writes of %d", guesses.Load(), len(ofAttempts), len(all))
}
