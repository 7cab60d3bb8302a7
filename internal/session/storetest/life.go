// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

func forgotten(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	idle, busy, revoked := s.stored(t, stores[0]), s.stored(t, stores[0]), s.stored(t, stores[0])
	revoked = s.swap(t, stores[0], revoked.Revoke(token.SessionRevoked, s.clock.Now()))

	until := func(at time.Time) { s.clock.Advance(at.Sub(s.clock.Now())) }
	gone := func(what string, was session.Session) {
		t.Helper()
		for i, store := range stores {
			if _, err := store.Load(t.Context(), was.ID); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("instance %d: load of the %s session: %v", i, what, err)
			}
			if _, err := store.Swap(t.Context(), was); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("instance %d: swap of the %s session: %v", i, what, err)
			}
		}
	}

	until(revoked.ForgetAfter())
	load(t, stores[1], revoked.ID)
	until(revoked.ForgetAfter().Add(time.Second))
	gone("revoked", revoked)

	busy = s.swap(t, stores[1], s.rotated(t, busy))
	until(idle.KeepUntil())
	load(t, stores[0], idle.ID)
	until(idle.KeepUntil().Add(time.Second))
	gone("idle", idle)
	busy = s.swap(t, stores[0], s.rotated(t, busy))

	until(busy.ExpiresAt.Add(session.MaxLeeway + time.Second))
	gone("busy", busy)
}

func reopen(t *testing.T, s *suite) {
	t.Helper()
	const sessions = 50
	first := s.open(t)
	want := map[session.ID]session.Session{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range sessions {
		created := s.login()
		created.Subject = fmt.Sprintf("user-%d", i)
		group.Go(func() {
			err := first.Create(t.Context(), created)
			var found session.Session
			if err == nil {
				found, err = first.Load(t.Context(), created.ID)
			}
			if err == nil && i%3 == 0 {
				found, err = first.Swap(t.Context(), s.rotated(t, found))
			}
			if err == nil && i%5 == 0 {
				found, err = first.Swap(t.Context(), found.Revoke(token.UserDisabled, s.clock.Now()))
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			want[created.ID] = found
		})
	}
	group.Wait()
	closeStore(t, first)

	second := s.open(t)
	for id, was := range want {
		found := load(t, second, id)
		same(t, "the session of "+was.Subject, found, was)
		if found.Version != was.Version {
			t.Errorf("%s: version %q is now %q", was.Subject, was.Version, found.Version)
		}
	}
}

func full(t *testing.T, s *suite) {
	t.Helper()
	if s.backend.Unlimited {
		t.Log("this store has no limit of its own")
		return
	}
	s.max = 20
	stores := s.openMany(t, 2)
	var kept []session.Session
	for {
		created := s.login()
		err := stores[0].Create(t.Context(), created)
		if errors.Is(err, session.ErrFull) {
			break
		}
		if err != nil || len(kept) > s.max {
			t.Fatalf("create after %d sessions: %v", len(kept), err)
		}
		kept = append(kept, created)
	}
	if len(kept) != s.max {
		t.Fatalf("full after %d sessions, not %d", len(kept), s.max)
	}

	// Another instance may learn of it a little later, but it does learn of it.
	ctx := within(t)
	for extra := 0; ; extra++ {
		err := stores[1].Create(ctx, s.login())
		if errors.Is(err, session.ErrFull) {
			break
		}
		if err != nil || extra > s.max {
			t.Fatalf("create number %d beyond the limit: %v", extra, err)
		}
	}

	// Whoever is in goes on.
	for _, created := range kept[:3] {
		found := load(t, stores[1], created.ID)
		s.swap(t, stores[1], s.rotated(t, found))
	}
	s.clock.Advance(Policy.IdleTimeout + session.MaxLeeway + time.Second)
	for i, store := range stores {
		if err := store.Create(t.Context(), s.login()); err != nil {
			t.Errorf("instance %d: create when the others have died: %v", i, err)
		}
	}
}
