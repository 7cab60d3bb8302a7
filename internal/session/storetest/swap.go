// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

func unknown(t *testing.T, s *suite) {
	t.Helper()
	store := s.open(t)
	if _, err := store.Load(t.Context(), session.NewID()); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("load: %v", err)
	}
	if _, err := store.Swap(t.Context(), s.login()); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("swap: %v", err)
	}
	if _, err := store.Swap(t.Context(), s.login().Revoke(token.SessionRevoked, s.clock.Now())); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("revoke: %v", err)
	}
	_ = s.stored(t, store) // the same again beside a session that there is
	if _, err := store.Load(t.Context(), session.NewID()); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("load beside another: %v", err)
	}
}

func comesBack(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	created := s.login()
	if err := stores[0].Create(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	found := load(t, stores[1], created.ID)
	same(t, "the created session", found, created)

	s.clock.Advance(6 * time.Minute)
	next := s.rotated(t, found)
	swapped := s.swap(t, stores[1], next)
	same(t, "what the swap returned", swapped, next)
	if swapped.Version == found.Version {
		t.Errorf("the version is still %q after a swap", swapped.Version)
	}
	again := load(t, stores[0], created.ID)
	same(t, "the swapped session", again, next)
	if again.Version != swapped.Version {
		t.Errorf("load has version %q, the swap returned %q", again.Version, swapped.Version)
	}

	revoked := again.Revoke(token.UserDisabled, s.clock.Now())
	same(t, "what the revocation returned", s.swap(t, stores[0], revoked), revoked)
	same(t, "the revoked session", load(t, stores[1], created.ID), revoked)
}

func createdOnce(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	first := s.stored(t, stores[0])
	second := s.login()
	second.ID, second.Subject = first.ID, "mallory"
	for i, store := range stores {
		if err := store.Create(t.Context(), second); !errors.Is(err, session.ErrExists) {
			t.Errorf("create again at instance %d: %v", i, err)
		}
	}
	same(t, "the first session", load(t, stores[1], first.ID), first)
}

func staleSwap(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	old := s.stored(t, stores[0])
	won := s.swap(t, stores[0], s.rotated(t, old))
	for i, store := range stores {
		got, err := store.Swap(t.Context(), s.rotated(t, old))
		if !errors.Is(err, session.ErrStale) {
			t.Errorf("instance %d: %v", i, err)
		}
		same(t, "what the loser got", got, won)
		if got.Version != won.Version {
			t.Errorf("instance %d: the loser got version %q, stored is %q", i, got.Version, won.Version)
		}
	}
	invented := s.rotated(t, won)
	invented.Version += "0"
	if _, err := stores[1].Swap(t.Context(), invented); !errors.Is(err, session.ErrStale) {
		t.Errorf("a version that never was: %v", err)
	}
	s.swap(t, stores[1], s.rotated(t, won))
}

// oneWinner has many workers at several instances follow one session through some
// generations; each of them swaps every generation it sees.
func oneWinner(t *testing.T, s *suite) {
	t.Helper()
	const workers, generations = 24, 5
	stores := s.openMany(t, 3)
	id := s.stored(t, stores[0]).ID
	var wins [generations + 2]atomic.Int64
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			store := stores[worker%len(stores)]
			found, err := store.Load(t.Context(), id)
			for err == nil && found.Generation <= generations {
				var won session.Session
				won, err = store.Swap(t.Context(), s.rotated(t, found))
				switch {
				case err == nil:
					wins[won.Generation].Add(1)
				case errors.Is(err, session.ErrStale):
					if won.Generation <= found.Generation {
						t.Errorf("lost generation %d against generation %d", found.Generation+1, won.Generation)
					}
					err = nil
				}
				found = won
			}
			if err != nil {
				t.Errorf("worker %d: %v", worker, err)
			}
		})
	}
	group.Wait()
	for generation := 2; generation <= generations+1; generation++ {
		if n := wins[generation].Load(); n != 1 {
			t.Errorf("generation %d was won %d times", generation, n)
		}
	}
}

func revocationWins(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	old := s.stored(t, stores[0])
	won := s.swap(t, stores[0], s.rotated(t, old))

	at := s.clock.Now().Add(3 * time.Second)
	revoked := s.swap(t, stores[1], old.Revoke(token.TokenReused, at))
	same(t, "the revoked session", revoked, won.Revoke(token.TokenReused, at))

	for i, store := range stores {
		again := s.swap(t, store, won.Revoke(token.UserDisabled, at.Add(time.Minute)))
		same(t, "the first revocation", again, revoked)
		if again.Version != revoked.Version {
			t.Errorf("instance %d: revoking again made version %q of %q", i, again.Version, revoked.Version)
		}
		undo := load(t, store, old.ID)
		undo.Revoked = nil
		if got, err := store.Swap(t.Context(), undo); !errors.Is(err, session.ErrStale) || got.Revoked == nil {
			t.Errorf("instance %d: a revoked session came back: %v", i, err)
		}
	}
}

// revocationOfForgotten is [session.Decide]'s rule 5: the store went back, and somebody
// presents a token that lives longer than all that the store knows.
func revocationOfForgotten(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	old := s.stored(t, stores[0])
	revoked := old.Revoke(token.SessionRevoked, s.clock.Now())
	revoked.TokensUntil = old.TokensUntil.Add(20 * time.Minute)
	same(t, "the revoked session", s.swap(t, stores[0], revoked), revoked)
	again := revoked
	again.TokensUntil = revoked.TokensUntil.Add(time.Hour)
	same(t, "the session that was revoked before", s.swap(t, stores[1], again), revoked)

	s.clock.Advance(revoked.ForgetAfter().Add(-time.Second).Sub(s.clock.Now()))
	for _, store := range stores {
		same(t, "the session before it is forgotten", load(t, store, old.ID), revoked)
		stream, sent := s.settled(t, store, "", revoked)
		stream.describes(sent[old.ID], revoked)
	}
}

func revocationRace(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 3)
	for range 5 {
		id := s.stored(t, stores[0]).ID
		var over atomic.Bool // set after the revocation has returned
		var started, group sync.WaitGroup
		for worker := range 9 {
			started.Add(1)
			group.Go(func() {
				store := stores[worker%len(stores)]
				found, err := store.Load(t.Context(), id)
				started.Done()
				for err == nil && found.Revoked == nil {
					tooLate := over.Load()
					var next session.Session
					next, err = store.Swap(t.Context(), s.rotated(t, found))
					if tooLate && err == nil {
						t.Errorf("generation %d was swapped in after the revocation", next.Generation)
						return
					}
					if errors.Is(err, session.ErrStale) {
						err = nil
					}
					found = next
				}
				if err != nil {
					t.Errorf("worker %d: %v", worker, err)
				}
			})
		}
		started.Wait()
		s.swap(t, stores[1], session.Session{ID: id, Policy: s.policy}.Revoke(token.SessionRevoked, s.clock.Now()))
		over.Store(true)
		for i, store := range stores {
			if found := load(t, store, id); found.Revoked == nil {
				t.Errorf("instance %d does not know of the revocation", i)
			}
		}
		group.Wait()
	}
}

func cancelled(t *testing.T, s *suite) {
	t.Helper()
	store := s.open(t)
	found := s.stored(t, store)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Create(ctx, s.login()); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	if _, err := store.Load(ctx, found.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("load: %v", err)
	}
	if _, err := store.Swap(ctx, s.rotated(t, found)); !errors.Is(err, context.Canceled) {
		t.Errorf("swap: %v", err)
	}
	if _, err := store.Revocations(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("revocations: %v", err)
	}

	// Cancelled while others wait for the same write: those get what they asked for.
	var group sync.WaitGroup
	for worker := range 20 {
		mine := s.login()
		if worker%2 == 0 {
			group.Go(func() {
				if err := store.Create(t.Context(), mine); err != nil {
					t.Errorf("create beside a cancelled one: %v", err)
				} else if _, err := store.Load(t.Context(), mine.ID); err != nil {
					t.Errorf("load beside a cancelled one: %v", err)
				}
			})
			continue
		}
		group.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			group.Go(cancel)
			if err := store.Create(ctx, mine); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled create: %v", err)
			}
		})
	}
	group.Wait()
	s.swap(t, store, s.rotated(t, found))
}

func policies(t *testing.T, s *suite) {
	t.Helper()
	store := s.open(t)
	found := s.stored(t, store)
	other := &suite{backend: s.backend, clock: s.clock, policy: NewPolicyID()}
	foreign := other.open(t)
	if _, err := foreign.Load(t.Context(), found.ID); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("load from another policy's store: %v", err)
	}
	if err := foreign.Create(t.Context(), s.login()); err == nil {
		t.Error("another policy's store took the session")
	}
	if _, err := foreign.Swap(t.Context(), s.rotated(t, found)); err == nil {
		t.Error("another policy's store swapped the session")
	}
	same(t, "the session", load(t, store, found.ID), found)
}
