// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package storetest holds a store of sessions to the contract of [session.Store].
// A store's own test is a [Backend] and a call of [Run]; what is peculiar to it, such
// as what its server does to it, it tests itself.
package storetest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenward/tokenward/internal/session"
)

// patience is how long a store may take for what it need not do at once.
const patience = 30 * time.Second

// Options of an instance.
type Options struct {
	Policy session.PolicyID
	// MaxSessions of all instances together.
	MaxSessions int
	Now         func() time.Time
}

// Backend is a kind of store.
type Backend struct {
	// Open returns one more instance over the sessions of o.Policy, and closes it when
	// tb ends unless the suite has. An instance may be an io.Closer.
	Open func(tb testing.TB, o Options) session.Store
	// Unlimited stores pay no heed to MaxSessions.
	Unlimited bool
}

// Run runs the suite.
func Run(t *testing.T, backend Backend) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"an unknown session is not found", unknown},
		{"a session comes back as it was stored", comesBack},
		{"a session is created once", createdOnce},
		{"a swap of an old version gets what is stored instead", staleSwap},
		{"of many swaps one wins", oneWinner},
		{"a revocation wins whatever the version", revocationWins},
		{"a revocation lasts as long as a token that the store has forgotten", revocationOfForgotten},
		{"a revocation wins every race", revocationRace},
		{"every history is linearizable", linearizable},
		{"a dead session is forgotten, a revoked one when its tokens are dead", forgotten},
		{"revocations come to every instance, then synced, then as they happen", revocations},
		{"a stream resumes at another instance where it was", resume},
		{"a cursor that is not understood means everything", strangeCursor},
		{"a revocation that no longer matters is not sent", irrelevant},
		{"a stream ends with its context", streamEnds},
		{"a cancelled call returns and harms nobody", cancelled},
		{"nothing is lost over a reopen", reopen},
		{"a full store refuses until there is room", full},
		{"policies do not mix", policies},
		{"an order ends the sessions that it selects, and counts them", selects},
		{"what an order ended is as if each were revoked", revokedAsOne},
		{"an order wins over refreshes at other instances", orderRace},
		{"an order among logins ends all that were there before", orderAmongLogins},
		{"two orders at once count each session once", twoOrders},
		{"an order comes to every instance, also to one that resumes", orderStream},
		{"an order ends thousands", manySessions},
		{"a cancelled order returns, and another one does the rest", cancelledOrder},
		{"an order ends nothing of another policy", orderOfAPolicy},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, &suite{backend: backend, clock: NewClock(), policy: NewPolicyID()})
		})
	}
}

// NewPolicyID is a UID as Kubernetes gives one to a TokenPolicy.
func NewPolicyID() session.PolicyID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return session.PolicyID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// Policy is what the suite's sessions are made under.
var Policy = session.Policy{
	TTL: 5 * time.Minute, IdleTimeout: time.Hour, AbsoluteTimeout: 24 * time.Hour,
	ReuseGrace: 10 * time.Second, Leeway: 30 * time.Second,
}

// Clock is set by hand.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock starts at the present second.
func NewClock() *Clock { return &Clock{now: time.Now().UTC().Truncate(time.Second)} }

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves it.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type suite struct {
	backend Backend
	clock   *Clock
	policy  session.PolicyID
	max     int
}

func (s *suite) open(t *testing.T) session.Store {
	t.Helper()
	limit := s.max
	if limit == 0 {
		limit = 10000
	}
	return s.backend.Open(t, Options{Policy: s.policy, MaxSessions: limit, Now: s.clock.Now})
}

func (s *suite) openMany(t *testing.T, n int) []session.Store {
	t.Helper()
	var stores []session.Store
	for range n {
		stores = append(stores, s.open(t))
	}
	return stores
}

func closeStore(t *testing.T, store session.Store) {
	t.Helper()
	if closer, ok := store.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
}

// login is a session that is not stored yet.
func (s *suite) login() session.Session {
	created := session.New(s.policy, "alice", s.clock.Now(), Policy, session.NewTokenID())
	created.Current.KeyID = "3f1d-key"
	created.Current.Claims = json.RawMessage(`{"role":"admin","größe":1.50}`)
	return created
}

// stored is a session as the store has it.
func (s *suite) stored(t *testing.T, store session.Store) session.Session {
	t.Helper()
	created := s.login()
	if err := store.Create(t.Context(), created); err != nil {
		t.Fatalf("create: %v", err)
	}
	return load(t, store, created.ID)
}

func load(t *testing.T, store session.Store, id session.ID) session.Session {
	t.Helper()
	found, err := store.Load(t.Context(), id)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return found
}

// rotated is what a refresh with the current token swaps in.
func (s *suite) rotated(t *testing.T, from session.Session) session.Session {
	t.Helper()
	presented := session.Presented{Generation: from.Generation, TokenID: from.Current.ID, ExpiresAt: from.Current.ExpiresAt}
	verdict := session.Decide(from, presented, s.clock.Now(), Policy, session.NewTokenID())
	if verdict.Action != session.ActionRotate {
		t.Fatalf("a refresh with the current token: %s %s", verdict.Action, verdict.Reason)
	}
	verdict.Next.Current.KeyID = "77aa-key"
	verdict.Next.Current.Claims = json.RawMessage(fmt.Sprintf(`{"n":%d}`, verdict.Next.Generation))
	return verdict.Next
}

func (s *suite) swap(t *testing.T, store session.Store, next session.Session) session.Session {
	t.Helper()
	swapped, err := store.Swap(t.Context(), next)
	if err != nil {
		t.Fatalf("swap: %v", err)
	}
	return swapped
}

// same compares all but the version, which is the store's own.
func same(t *testing.T, what string, got, want session.Session) {
	t.Helper()
	got.Version, want.Version = "", ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

// within is a context that lives as long as the suite is patient.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
