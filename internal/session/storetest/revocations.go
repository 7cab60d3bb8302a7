// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

func (s *suite) revoke(t *testing.T, store session.Store) session.Session {
	t.Helper()
	return s.swap(t, store, s.stored(t, store).Revoke(token.SessionRevoked, s.clock.Now()))
}

// stream is a receiver of revocations.
type stream struct {
	t      *testing.T
	ctx    context.Context //nolint:containedctx // of one test
	events <-chan session.Event
	// cursor after the last event.
	cursor session.Cursor
}

func (s *suite) listen(t *testing.T, store session.Store, since session.Cursor) *stream {
	t.Helper()
	ctx := within(t)
	events, err := store.Revocations(ctx, since)
	if err != nil {
		t.Fatalf("revocations: %v", err)
	}
	return &stream{t: t, ctx: ctx, events: events}
}

func (r *stream) next() session.Event {
	r.t.Helper()
	select {
	case e, open := <-r.events:
		if !open {
			r.t.Fatal("the stream ended")
		}
		if e.Cursor == "" || len(e.Cursor) > 1024 {
			r.t.Errorf("cursor %q", e.Cursor)
		}
		r.cursor = e.Cursor
		return e
	case <-r.ctx.Done():
		r.t.Fatal("no event came")
		panic("unreachable")
	}
}

// untilSynced returns what comes before the synced event.
func (r *stream) untilSynced() map[session.ID]session.Event {
	r.t.Helper()
	seen := map[session.ID]session.Event{}
	for {
		e := r.next()
		if e.Synced {
			if e.ID != "" {
				r.t.Errorf("the synced event has the ID %q", e.ID)
			}
			return seen
		}
		seen[e.ID] = e
	}
}

// await waits until all of them have come.
func (r *stream) await(want ...session.Session) {
	r.t.Helper()
	left := map[session.ID]session.Session{}
	for _, w := range want {
		left[w.ID] = w
	}
	for len(left) > 0 {
		e := r.next()
		if e.Synced {
			r.t.Error("synced a second time")
		}
		if w, ok := left[e.ID]; ok {
			r.describes(e, w)
			delete(left, e.ID)
		}
	}
}

func (r *stream) describes(e session.Event, w session.Session) {
	r.t.Helper()
	if !e.At.Equal(w.Revoked.At) || !e.ForgetAfter.Equal(w.ForgetAfter()) {
		r.t.Errorf("revoked at %s, to forget after %s: the event says %s, %s", w.Revoked.At, w.ForgetAfter(), e.At, e.ForgetAfter)
	}
}

// settled opens a stream at an instance once that instance has heard of them all.
func (s *suite) settled(t *testing.T, store session.Store, since session.Cursor, want ...session.Session) (*stream, map[session.ID]session.Event) {
	t.Helper()
	early := s.listen(t, store, "")
	for left := len(want); left > 0; {
		e := early.next()
		for _, w := range want {
			if e.ID == w.ID {
				left--
			}
		}
	}
	late := s.listen(t, store, since)
	seen := late.untilSynced()
	return late, seen
}

func revocations(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	_ = s.stored(t, stores[0]) // one that lives on
	before := []session.Session{s.revoke(t, stores[0]), s.revoke(t, stores[1]), s.revoke(t, stores[0])}
	var streams []*stream
	for i, store := range stores {
		late, seen := s.settled(t, store, "", before...)
		streams = append(streams, late)
		if len(seen) != len(before) {
			t.Errorf("instance %d: %d revocations came before synced, there are %d", i, len(seen), len(before))
		}
		for _, w := range before {
			late.describes(seen[w.ID], w)
		}
	}
	after := []session.Session{s.revoke(t, stores[1]), s.revoke(t, stores[0])}
	for _, r := range streams {
		r.await(after...)
	}
}

func resume(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	before := []session.Session{s.revoke(t, stores[0]), s.revoke(t, stores[0]), s.revoke(t, stores[0])}
	first, _ := s.settled(t, stores[0], "", before...)

	missed := []session.Session{s.revoke(t, stores[0]), s.revoke(t, stores[1]), s.revoke(t, stores[1])}
	second, seen := s.settled(t, stores[1], first.cursor, append(before, missed...)...)
	for i, w := range missed {
		if _, ok := seen[w.ID]; !ok {
			t.Errorf("revocation %d, made while nobody listened, did not come", i)
		}
	}
	for i, w := range before {
		if _, ok := seen[w.ID]; ok {
			t.Errorf("revocation %d from before the cursor came again", i)
		}
	}
	after := s.revoke(t, stores[0])
	second.await(after)
	if _, seen = s.settled(t, stores[0], second.cursor, after); len(seen) != 0 {
		t.Errorf("%d revocations after the last cursor", len(seen))
	}
}

func strangeCursor(t *testing.T, s *suite) {
	t.Helper()
	store := s.open(t)
	revoked := s.revoke(t, store)
	for _, cursor := range []session.Cursor{"?", "-1", "1.", "9999999999999999999999", "1.x", "zzzzzzzzzzzzzz"} {
		if _, seen := s.settled(t, store, cursor, revoked); len(seen) != 1 {
			t.Errorf("cursor %q: %d revocations came, there is one", cursor, len(seen))
		}
	}
}

func irrelevant(t *testing.T, s *suite) {
	t.Helper()
	store := s.open(t)
	old := s.revoke(t, store)
	_, _ = s.settled(t, store, "", old)
	s.clock.Advance(Policy.TTL + session.MaxLeeway + time.Second)
	recent := s.revoke(t, store)
	if _, seen := s.settled(t, store, "", recent); len(seen) != 1 {
		t.Errorf("%d revocations came, one still matters", len(seen))
	}
}

func streamEnds(t *testing.T, s *suite) {
	t.Helper()
	store := s.open(t)
	s.revoke(t, store)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := store.Revocations(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	<-events
	cancel()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		case <-deadline.C:
			t.Fatal("the stream outlived its context")
		}
	}
}
