// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// faulty puts a function around every write of a store.
func faulty(tb testing.TB, around func(write func() error) error) client.WithWatch {
	tb.Helper()
	return interceptor.NewClient(newClient(tb), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return around(func() error { return c.Create(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return around(func() error { return c.Update(ctx, o, opts...) })
		},
	})
}

// TestConflictStorm has three instances of 32 workers each refresh the same few
// sessions as fast as they can.
func TestConflictStorm(t *testing.T) {
	const instances, workers, sessions, generations = 3, 32, 8, 6
	config := testConfig(t)
	config.Shards, config.WritesPerSecond = 1, 500
	var stores []*Store
	for range instances {
		config.Client = newClient(t)
		stores = append(stores, open(t, config))
	}
	var ids []session.ID
	for range sessions {
		ids = append(ids, createSession(t, stores[0]).ID)
	}
	var wins [sessions][generations + 2]atomic.Int64
	var group sync.WaitGroup
	for worker := range instances * workers {
		group.Go(func() {
			store, mine := stores[worker%instances], worker/instances%sessions
			found, err := store.Load(t.Context(), ids[mine])
			for err == nil && found.Generation <= generations {
				found, err = store.Swap(t.Context(), rotate(found, time.Now()))
				if errors.Is(err, session.ErrStale) {
					err = nil
				} else if err == nil {
					wins[mine][found.Generation].Add(1)
				}
			}
			if err != nil {
				t.Errorf("worker %d: %v", worker, err)
			}
		})
	}
	group.Wait()
	for mine := range sessions {
		for generation := 2; generation <= generations+1; generation++ {
			if n := wins[mine][generation].Load(); n != 1 {
				t.Errorf("session %d: generation %d was won %d times", mine, generation, n)
			}
		}
	}
	var conflicts int64
	for _, store := range stores {
		conflicts += store.Stats().Conflicts
	}
	if conflicts == 0 {
		t.Error("there was no conflict, so this showed nothing")
	}
}

// TestLostAnswers lets every second write be made and its answer be lost.
func TestLostAnswers(t *testing.T) {
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
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			created := newSession(config.Policy, time.Now())
			err := store.Create(t.Context(), created)
			var found session.Session
			if err == nil {
				found, err = store.Load(t.Context(), created.ID)
			}
			for err == nil && found.Generation < 5 {
				found, err = store.Swap(t.Context(), rotate(found, time.Now()))
			}
			if err == nil {
				_, err = store.Swap(t.Context(), found.Revoke(token.SessionRevoked, time.Now()))
			}
			if err != nil {
				t.Errorf("worker %d, alone with its session: %v", worker, err)
			}
		})
	}
	group.Wait()
}

// TestLostAnswerAndASuccessor is a swap whose answer is lost, and that another
// instance has followed up before its writer looks.
func TestLostAnswerAndASuccessor(t *testing.T) {
	config := testConfig(t)
	other := open(t, config)
	found := createSession(t, other)
	var follow func()
	config.Client = faulty(t, func(write func() error) error {
		err := write()
		if follow != nil {
			follow()
			follow = nil
			return errors.New("the connection was cut")
		}
		return err
	})
	store := open(t, config)
	var last session.Session
	follow = func() {
		landed, err := other.Load(t.Context(), found.ID)
		if err == nil {
			last, err = other.Swap(t.Context(), rotate(landed, time.Now()))
		}
		if err != nil {
			t.Error(err)
		}
	}
	swapped, err := store.Swap(t.Context(), rotate(found, time.Now()))
	if err != nil || swapped.Generation != last.Generation || swapped.Version != last.Version {
		t.Errorf("the swap was made: %v, generation %d, stored is %d", err, swapped.Generation, last.Generation)
	}
}

func TestRefusedWrites(t *testing.T) {
	refusal := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "sessions", errors.New("no role"))
	var requests atomic.Int64
	config := testConfig(t)
	config.Client = faulty(t, func(func() error) error { requests.Add(1); return refusal })
	store := open(t, config)
	err := store.Create(t.Context(), newSession(config.Policy, time.Now()))
	if !apierrors.IsForbidden(err) || requests.Load() != 1 {
		t.Errorf("%d requests: %v", requests.Load(), err)
	}
}

// TestACancelledCallDoesNotWaitForTheServer has one caller leave while the server hangs.
func TestACancelledCallDoesNotWaitForTheServer(t *testing.T) {
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	config := testConfig(t)
	config.Shards, config.WritesPerSecond = 1, 500
	config.Client = faulty(t, func(write func() error) error {
		arrived <- struct{}{}
		<-release
		return write()
	})
	store := open(t, config)
	ctx, cancel := context.WithCancel(t.Context())
	left, stays := make(chan error, 1), make(chan error, 1)
	go func() { left <- store.Create(ctx, newSession(config.Policy, time.Now())) }()
	<-arrived
	go func() { stays <- store.Create(t.Context(), newSession(config.Policy, time.Now())) }()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	close(release)
	if err := <-stays; err != nil {
		t.Errorf("who stayed: %v", err)
	}
}

func TestAFullShardLosesNothing(t *testing.T) {
	config := testConfig(t)
	config.Shards, config.WritesPerSecond = 1, 500
	store := open(t, config)
	claims := func(size int) []byte { return fmt.Appendf(nil, `{"x":%q}`, strings.Repeat("x", size)) }
	var kept []session.Session
	for {
		created := newSession(config.Policy, time.Now())
		created.Current.Claims = claims(48 << 10)
		err := store.Create(t.Context(), created)
		if errors.Is(err, session.ErrFull) {
			break
		}
		if err != nil || len(kept) > 100 {
			t.Fatalf("create number %d: %v", len(kept), err)
		}
		kept = append(kept, created)
	}
	grown := 0
	for _, created := range kept {
		found, err := store.Load(t.Context(), created.ID)
		if err != nil {
			t.Fatal(err)
		}
		next := rotate(found, time.Now())
		next.Current.Claims = claims(96 << 10)
		switch _, err := store.Swap(t.Context(), next); {
		case err == nil:
			grown++
		case !errors.Is(err, session.ErrFull):
			t.Fatalf("a swap that grows: %v", err)
		}
	}
	if grown == 0 || grown == len(kept) {
		t.Errorf("%d of %d sessions could grow", grown, len(kept))
	}
	// Somebody puts something else into what room is left: now the server refuses.
	cm, _ := shardOf(t, store, kept[0].ID)
	room := 1<<20 - 100
	for _, value := range cm.BinaryData {
		room -= len(value)
	}
	cm.Data = map[string]string{"note": string(make([]byte, room))}
	edit(t, store, cm)
	for _, created := range kept {
		if _, err := store.Swap(t.Context(), created.Revoke(token.SessionRevoked, time.Now())); err != nil {
			t.Fatalf("a revocation: %v", err)
		}
	}
}

func TestGarbageIsCollected(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	config := testConfig(t)
	config.WritesPerSecond, config.SweepInterval = 500, -1
	config.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	store := open(t, config)
	first := createSession(t, store)
	for range 20 {
		createSession(t, store)
	}
	count := func() (n int) {
		list := &corev1.ConfigMapList{}
		if err := config.Client.List(t.Context(), list, client.InNamespace(testNamespace), store.selector()); err != nil {
			t.Fatal(err)
		}
		for _, cm := range list.Items {
			n += len(cm.BinaryData)
		}
		return n
	}
	writes := store.Stats().Writes
	if err := store.Sweep(t.Context()); err != nil || store.Stats().Writes != writes {
		t.Errorf("a sweep of living sessions made %d writes: %v", store.Stats().Writes-writes, err)
	}
	mu.Lock()
	now = now.Add(2 * time.Hour)
	mu.Unlock()
	living := createSession(t, store)
	at := locate(config.Policy, config.Shards, living.ID)
	if known := store.readers[at.shard].newest.Load(); len(known.entries) != 1 {
		t.Errorf("%d sessions are left in the shard that was written", len(known.entries))
	}
	if err := store.Sweep(t.Context()); err != nil || count() != 1 {
		t.Errorf("%d sessions are left after a sweep, one lives: %v", count(), err)
	}
	if _, err := store.Swap(t.Context(), rotate(first, now)); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("swap of a collected session: %v", err)
	}
}

func TestADeletedShardIsAnEmptyOne(t *testing.T) {
	config := testConfig(t)
	config.Shards = 1
	store := open(t, config)
	lost := createSession(t, store)
	cm, _ := shardOf(t, store, lost.ID)
	if err := config.Client.Delete(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(t.Context(), lost.ID); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("load: %v", err)
	}
	if _, err := store.Swap(t.Context(), rotate(lost, time.Now())); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("swap: %v", err)
	}
	createSession(t, store)
}

func TestManyCreatesForTheLastPlaces(t *testing.T) {
	config := testConfig(t)
	config.MaxSessions, config.WritesPerSecond = 100, 500
	store := open(t, config)
	var made, refused atomic.Int64
	var group sync.WaitGroup
	for range 300 {
		group.Go(func() {
			switch err := store.Create(t.Context(), newSession(config.Policy, time.Now())); {
			case err == nil:
				made.Add(1)
			case errors.Is(err, session.ErrFull):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if made.Load() != 100 || refused.Load() != 200 {
		t.Errorf("%d made and %d refused of 300, there is room for 100", made.Load(), refused.Load())
	}
}

// A write that the watch tells of before it is answered takes one place and not two.
func TestAWriteThatIsNotAnsweredYetIsCountedOnce(t *testing.T) {
	config := testConfig(t)
	config.Shards, config.MaxSessions = 2, 2
	answered, first := make(chan struct{}), atomic.Bool{}
	config.Client = faulty(t, func(write func() error) error {
		err := write()
		if first.CompareAndSwap(false, true) {
			<-answered
		}
		return err
	})
	store := open(t, config)
	a, b := newSession(config.Policy, time.Now()), newSession(config.Policy, time.Now())
	for locate(config.Policy, 2, a.ID).shard == locate(config.Policy, 2, b.ID).shard {
		b = newSession(config.Policy, time.Now())
	}
	late := make(chan error, 1)
	go func() { late <- store.Create(t.Context(), a) }()
	for deadline := time.Now().Add(10 * time.Second); store.Stats().Sessions == 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the watch tells nothing")
		}
	}
	if err := store.Create(t.Context(), b); err != nil {
		t.Errorf("the second of two: %v", err)
	}
	close(answered)
	if err := <-late; err != nil {
		t.Errorf("the first of two: %v", err)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	config := testConfig(t)
	createSession(t, open(t, config)) // the client's connections are there now
	before := goleak.IgnoreCurrent()
	store, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	createSession(t, store)
	events, err := store.Revocations(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	<-events
	_ = store.Close()
	for range events { // until it is closed
	}
	goleak.VerifyNone(t, before)
	if err := store.Create(t.Context(), newSession(config.Policy, time.Now())); err == nil || errors.Is(err, session.ErrFull) {
		t.Errorf("create in a closed store: %v", err)
	}
	if _, err := store.Load(t.Context(), "x"); err == nil || errors.Is(err, session.ErrNotFound) {
		t.Errorf("load from a closed store: %v", err)
	}
}
