// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

func (s *suite) revokeWhere(t *testing.T, store session.Store, which session.Selection) int {
	t.Helper()
	revoked, err := store.RevokeWhere(within(t), which, s.order())
	if err != nil {
		t.Fatalf("revoke where: %v", err)
	}
	return revoked
}

// order is an administrator's, now.
func (s *suite) order() session.Revocation {
	return session.Revocation{At: s.clock.Now(), Reason: token.SessionRevoked}
}

// everybody is who has logged in until now.
func (s *suite) everybody() session.Selection {
	return session.Selection{AllSubjects: true, CreatedUntil: s.clock.Now()}
}

// storedOf is a new session of a subject.
func (s *suite) storedOf(t *testing.T, store session.Store, subject string) session.Session {
	t.Helper()
	created := s.login()
	created.Subject = subject
	if err := store.Create(t.Context(), created); err != nil {
		t.Fatalf("create: %v", err)
	}
	return load(t, store, created.ID)
}

func selects(t *testing.T, s *suite) {
	t.Helper()
	tests := []struct {
		name  string
		which func(now time.Time) session.Selection
		ends  []string
	}{
		{"nothing is selected by nothing", func(time.Time) session.Selection { return session.Selection{} }, nil},
		{"a time alone selects nobody", func(now time.Time) session.Selection {
			return session.Selection{CreatedUntil: now.Add(time.Hour)}
		}, nil},
		{"everybody, but until no time", func(time.Time) session.Selection { return session.Selection{AllSubjects: true} }, nil},
		{"somebody who is not there", func(now time.Time) session.Selection {
			return session.Selection{Subject: "alic", CreatedUntil: now.Add(time.Hour)}
		}, nil},
		{"somebody, before the first login", func(now time.Time) session.Selection {
			return session.Selection{Subject: "alice", CreatedUntil: now.Add(-time.Second)}
		}, nil},
		{"somebody, until the second of a login", func(now time.Time) session.Selection {
			return session.Selection{Subject: "alice", CreatedUntil: now}
		}, []string{"alice first", "alice again"}},
		{"somebody, until within the second of a login", func(now time.Time) session.Selection {
			return session.Selection{Subject: "alice", CreatedUntil: now.Add(999 * time.Millisecond)}
		}, []string{"alice first", "alice again"}},
		{"somebody, until later", func(now time.Time) session.Selection {
			return session.Selection{Subject: "alice", CreatedUntil: now.Add(time.Second)}
		}, []string{"alice first", "alice again", "alice later"}},
		{"somebody with a strange name", func(now time.Time) session.Selection {
			return session.Selection{Subject: `o'hara "*%_\ größe`, CreatedUntil: now.Add(time.Hour)}
		}, []string{"strange"}},
		{"everybody, until the second of a login", func(now time.Time) session.Selection {
			return session.Selection{AllSubjects: true, CreatedUntil: now}
		}, []string{"alice first", "alice again", "bob", "strange"}},
		{"everybody, whoever is named", func(now time.Time) session.Selection {
			return session.Selection{AllSubjects: true, Subject: "bob", CreatedUntil: now.Add(time.Hour)}
		}, []string{"alice first", "alice again", "alice later", "bob", "strange"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{backend: s.backend, clock: NewClock(), policy: NewPolicyID()}
			stores := s.openMany(t, 2)
			now := s.clock.Now()
			before := map[string]session.Session{
				"alice first": s.storedOf(t, stores[0], "alice"),
				"bob":         s.storedOf(t, stores[1], "bob"),
				"strange":     s.storedOf(t, stores[0], `o'hara "*%_\ größe`),
			}
			s.clock.Advance(700 * time.Millisecond)
			before["alice again"] = s.storedOf(t, stores[1], "alice")
			s.clock.Advance(300 * time.Millisecond)
			before["alice later"] = s.storedOf(t, stores[0], "alice")
			earlier := s.storedOf(t, stores[1], "alice")
			earlier = s.swap(t, stores[1], earlier.Revoke(token.UserDisabled, s.clock.Now()))
			s.clock.Advance(5 * time.Second)

			want := maps.Clone(before)
			for _, name := range test.ends {
				want[name] = before[name].Revoke(token.SessionRevoked, s.clock.Now())
			}
			if n := s.revokeWhere(t, stores[1], test.which(now)); n != len(test.ends) {
				t.Errorf("%d sessions were revoked, there are %d", n, len(test.ends))
			}
			check := func(when string) {
				t.Helper()
				for i, store := range stores {
					for name, w := range want {
						same(t, fmt.Sprintf("%s, instance %d: %s", when, i, name), load(t, store, w.ID), w)
					}
					same(t, fmt.Sprintf("%s, instance %d: the one that was revoked before", when, i), load(t, store, earlier.ID), earlier)
				}
			}
			check("after the order")
			s.clock.Advance(5 * time.Second)
			if n := s.revokeWhere(t, stores[0], test.which(now)); n != 0 {
				t.Errorf("the same order again revoked %d sessions", n)
			}
			check("after the same order again")
		})
	}
}

func revokedAsOne(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	first := s.storedOf(t, stores[0], "alice")
	rotated := s.swap(t, stores[0], s.rotated(t, first))
	at := s.clock.Now().Add(1700 * time.Millisecond)
	which := session.Selection{Subject: "alice", CreatedUntil: s.clock.Now()}
	if n, err := stores[1].RevokeWhere(t.Context(), which, session.Revocation{At: at, Reason: token.UserDisabled}); n != 1 || err != nil {
		t.Fatalf("%d were revoked: %v", n, err)
	}
	want := rotated.Revoke(token.UserDisabled, at)
	for i, store := range stores {
		found := load(t, store, first.ID)
		same(t, "the revoked session", found, want)
		if found.Version == rotated.Version {
			t.Errorf("instance %d: the version is still %q", i, found.Version)
		}
		if got, err := store.Swap(t.Context(), s.rotated(t, rotated)); !errors.Is(err, session.ErrStale) || got.Revoked == nil {
			t.Errorf("instance %d: a refresh with the version from before: %v", i, err)
		}
		same(t, "revoked again", s.swap(t, store, found.Revoke(token.SessionRevoked, at.Add(time.Minute))), want)
	}
	s.clock.Advance(want.ForgetAfter().Add(time.Second).Sub(s.clock.Now()))
	for i, store := range stores {
		if _, err := store.Load(t.Context(), first.ID); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("instance %d: when its tokens are dead: %v", i, err)
		}
	}
}

func orderStream(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 2)
	old := s.revoke(t, stores[0])
	first, _ := s.settled(t, stores[1], "", old)
	cursor := first.cursor

	var ended []session.Session
	for range 20 {
		ended = append(ended, s.storedOf(t, stores[0], "alice"))
	}
	alive := s.storedOf(t, stores[0], "bob")
	s.clock.Advance(2 * time.Second)
	if n := s.revokeWhere(t, stores[0], session.Selection{Subject: "alice", CreatedUntil: s.clock.Now()}); n != len(ended) {
		t.Errorf("%d of %d were revoked", n, len(ended))
	}
	for i := range ended {
		ended[i] = ended[i].Revoke(token.SessionRevoked, s.clock.Now())
	}
	first.await(ended...)

	late, seen := s.settled(t, stores[0], cursor, append(ended, old)...)
	for i, w := range ended {
		if _, ok := seen[w.ID]; !ok {
			t.Errorf("session %d did not come after the cursor from before the order", i)
		}
	}
	// In the middle of an order, too, a cursor is a place.
	again, had := s.listen(t, stores[1], ""), map[session.ID]bool{}
	for range 8 {
		had[again.next().ID] = true
	}
	_, rest := s.settled(t, stores[0], again.cursor, append(ended, old)...)
	for i, w := range ended {
		if _, ok := rest[w.ID]; !ok && !had[w.ID] {
			t.Errorf("session %d came neither before nor after the 8th event", i)
		}
	}
	last := s.swap(t, stores[1], alive.Revoke(token.UserDisabled, s.clock.Now()))
	late.await(last)
}

func manySessions(t *testing.T, s *suite) {
	t.Helper()
	const sessions, workers = 2000, 40
	stores := s.openMany(t, 2)
	all := make([]session.Session, sessions)
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := worker; i < sessions; i += workers {
				all[i] = s.login()
				all[i].Subject = fmt.Sprintf("user-%d", i%2)
				if err := stores[0].Create(t.Context(), all[i]); err != nil {
					t.Errorf("create: %v", err)
				}
			}
		})
	}
	group.Wait()
	stream := s.listen(t, stores[0], "")
	stream.untilSynced()
	if n := s.revokeWhere(t, stores[1], session.Selection{Subject: "user-1", CreatedUntil: s.clock.Now()}); n != sessions/2 {
		t.Errorf("%d sessions were revoked, the subject has %d", n, sessions/2)
	}
	if n := s.revokeWhere(t, stores[0], s.everybody()); n != sessions/2 {
		t.Errorf("%d sessions were revoked, %d are left", n, sessions/2)
	}
	for i := range all {
		all[i] = all[i].Revoke(token.SessionRevoked, s.clock.Now())
	}
	stream.await(all...)
	for worker := range workers {
		group.Go(func() {
			for i := worker; i < sessions; i += workers {
				if found, err := stores[i/2%2].Load(t.Context(), all[i].ID); err != nil || found.Revoked == nil {
					t.Errorf("session %d: %v, revoked %v", i, err, found.Revoked)
				}
			}
		})
	}
	group.Wait()
}

func cancelledOrder(t *testing.T, s *suite) {
	t.Helper()
	const sessions = 60
	store := s.open(t)
	ids := make([]session.ID, sessions)
	var group sync.WaitGroup
	for i := range ids {
		created := s.login()
		ids[i] = created.ID
		group.Go(func() {
			if err := store.Create(t.Context(), created); err != nil {
				t.Errorf("create: %v", err)
			}
		})
	}
	group.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := store.RevokeWhere(ctx, s.everybody(), s.order()); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled order: %d, %v", n, err)
	}
	for _, id := range ids {
		if load(t, store, id).Revoked != nil {
			t.Fatal("an order that was cancelled before it began ended a session")
		}
	}
	ctx, cancel = context.WithCancel(t.Context())
	group.Go(cancel)
	n, err := store.RevokeWhere(ctx, s.everybody(), s.order())
	group.Wait()
	switch {
	case err == nil && n != sessions:
		t.Errorf("the order came to its end with %d of %d", n, sessions)
	case err != nil && !errors.Is(err, context.Canceled):
		t.Errorf("an order that was cancelled under way: %v", err)
	}
	if rest := s.revokeWhere(t, store, s.everybody()); rest > sessions-n {
		t.Errorf("%d and %d sessions were revoked, there are %d", n, rest, sessions)
	}
	for _, id := range ids {
		if load(t, store, id).Revoked == nil {
			t.Error("a session is live after the order was repeated")
		}
	}
	closeStore(t, store)
	if _, err := store.RevokeWhere(t.Context(), s.everybody(), s.order()); err == nil {
		t.Error("a closed store took an order")
	}
}

func orderOfAPolicy(t *testing.T, s *suite) {
	t.Helper()
	other := &suite{backend: s.backend, clock: s.clock, policy: NewPolicyID()}
	mine, theirs := s.open(t), other.open(t)
	found, foreign := s.stored(t, mine), other.stored(t, theirs)
	if n := s.revokeWhere(t, mine, s.everybody()); n != 1 {
		t.Errorf("%d were revoked of one", n)
	}
	if load(t, mine, found.ID).Revoked == nil {
		t.Error("the policy's own session is live")
	}
	same(t, "another policy's session", load(t, theirs, foreign.ID), foreign)
}
