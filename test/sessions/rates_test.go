// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/configmap"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/token"
)

// load is refreshes as they are offered to a store.
type load struct {
	perSecond int // 0: as many as 32 callers can
	goal      string
	reached   func(measured) bool
}

type measured struct {
	perSecond, writes float64
	p50, p99          time.Duration
}

func (m measured) String() string {
	text := fmt.Sprintf("%.0f/s, p50 %s, p99 %s", m.perSecond, milliseconds(m.p50), milliseconds(m.p99))
	if m.writes > 0 {
		text += fmt.Sprintf(", %.0f API writes/s", m.writes)
	}
	return text
}

func slowest(p99 time.Duration) (string, func(measured) bool) {
	return fmt.Sprintf("p99 < %s", p99), func(m measured) bool { return m.p99 < p99 }
}

func loads(kind string) []load {
	within := func(perSecond int, p99 time.Duration) load {
		goal, reached := slowest(p99)
		return load{perSecond, goal, reached}
	}
	atLeast := func(n float64) load {
		return load{0, fmt.Sprintf(">= %.0f/s", n), func(m measured) bool { return m.perSecond >= n }}
	}
	switch kind {
	case "redis":
		return []load{within(500, 5*time.Millisecond), atLeast(2000)}
	case "postgres":
		return []load{within(500, 15*time.Millisecond), atLeast(1000)}
	default:
		return []load{
			{33, "p50 < 20ms", func(m measured) bool { return m.p50 < 20*time.Millisecond }},
			within(500, 500*time.Millisecond),
		}
	}
}

// rates measures the stores: an operation is a load, a decision and a swap of one of
// many sessions. Then the same as an issuer does it: with the token verified, the user
// looked up in a database and the new token signed.
func rates(t *testing.T, w *world) {
	t.Helper()
	for _, store := range w.shared() {
		t.Run("rates of "+store.Kind, func(t *testing.T) {
			store.MaxSessions = w.scale.sessions + 1
			f := fill(t, w, store)
			// First, while the tokens of the logins are the newest.
			f.run(t, store.Kind+", whole refresh at an issuer", loads(store.Kind)[0], f.refresh)
			for _, l := range loads(store.Kind) {
				f.run(t, fmt.Sprintf("%s, %d sessions", store.Kind, w.scale.sessions), l, f.swap)
			}
		})
	}
}

// filled is an issuer with many sessions.
type filled struct {
	*world
	store  access
	issuer *issuer
	ids    []session.ID
	raw    []string
	// generations that each session must have come to.
	generations []atomic.Int64
}

func fill(t *testing.T, w *world, store access) *filled {
	t.Helper()
	w.say("%s: %d logins", store.Kind, w.scale.sessions)
	f := &filled{world: w, store: store, issuer: anotherIssuer(t, store, storetest.NewPolicyID(), w.keys[token.ES256], time.Now)}
	n := w.scale.sessions
	f.ids, f.raw, f.generations = make([]session.ID, n), make([]string, n), make([]atomic.Int64, n)
	progress := w.every(5 * time.Second)
	// Logins share the writes to a shard: many at once make few of them.
	parallel(256, n, func(i int) {
		got, err := f.issuer.service.Login(w.ctx, f.issuer.policy, map[string]string{"id": alice, "phone": phone}, netip.Addr{})
		if err != nil && w.ctx.Err() == nil {
			t.Errorf("login %d: %v", i, err)
		}
		f.ids[i], f.raw[i] = got.Session, got.Raw
		f.generations[i].Store(1)
		progress("%s: login %d", store.Kind, i)
	})
	w.interrupted(t)
	if t.Failed() {
		t.FailNow()
	}
	return f
}

// swap refreshes session i with the store alone.
func (f *filled) swap(ctx context.Context, i int) error {
	found, err := f.issuer.policy.Sessions.Load(ctx, f.ids[i])
	if err != nil {
		return err
	}
	presented := session.Presented{Generation: found.Generation, TokenID: found.Current.ID, ExpiresAt: found.Current.ExpiresAt}
	next := session.Decide(found, presented, time.Now(), f.issuer.policy.Session, session.NewTokenID()).Next
	next.Current.KeyID, next.Current.Claims = found.Current.KeyID, found.Current.Claims
	_, err = f.issuer.policy.Sessions.Swap(ctx, next)
	return err
}

// refresh has the issuer refresh session i with the newest token of it.
func (f *filled) refresh(ctx context.Context, i int) error {
	got, err := f.issuer.refresh(ctx, f.raw[i])
	if err == nil {
		f.raw[i] = got.Raw
	}
	return err
}

// run offers a load and checks that every refresh made one generation.
func (f *filled) run(t *testing.T, figure string, l load, work func(context.Context, int) error) {
	t.Helper()
	if l.perSecond > 0 {
		figure += fmt.Sprintf(", %d/s offered", l.perSecond)
	} else {
		figure += ", 32 callers at once"
	}
	var m measured
	held := f.must(t, figure, "each makes one generation", func(t *testing.T) string {
		t.Helper()
		operations := 0
		m, operations = f.offer(t, l, work)
		f.check(t)
		return fmt.Sprintf("%d of %d", operations, operations)
	})
	if held {
		f.time("the same", l.goal, m.String(), l.reached(m))
	}
}

// offer refreshes every session at most once, so that no two meet in one.
func (f *filled) offer(t *testing.T, l load, work func(context.Context, int) error) (measured, int) {
	t.Helper()
	n := len(f.ids)
	if l.perSecond > 0 {
		seconds := f.scale.seconds
		if l.perSecond < 100 {
			seconds *= 3
		}
		n = min(n, l.perSecond*seconds)
	}
	times := make([]time.Duration, n)
	one := func(i int) {
		at := i * 7919 % len(f.ids) // the order of the logins is that of no shard
		begin := time.Now()
		err := work(f.ctx, at)
		times[i] = time.Since(begin)
		if err != nil {
			if f.ctx.Err() == nil {
				t.Errorf("refresh %d: %v", i, err)
			}
			return
		}
		f.generations[at].Add(1)
	}
	before, began := f.writes(), time.Now()
	if l.perSecond > 0 {
		steadily(f.ctx, l.perSecond, n, one)
	} else {
		parallel(32, n, one)
	}
	took, writes := time.Since(began), f.writes()-before
	f.interrupted(t)
	// The writes of a second are bounded, whatever the load; the first ones may come in a burst.
	if bound := 50 * (took.Seconds() + 1); float64(writes) > bound {
		t.Errorf("%d writes to the API server in %s", writes, took)
	}
	return measured{
		perSecond: float64(n) / took.Seconds(), writes: float64(writes) / took.Seconds(),
		p50: percentile(times, 50), p99: percentile(times, 99),
	}, n
}

// writes to the API server so far; 0 for the stores that make none.
func (f *filled) writes() int64 {
	if store, ok := f.issuer.policy.Sessions.(interface{ Stats() configmap.Stats }); ok {
		return store.Stats().Writes
	}
	return 0
}

// check compares every session with the number of its refreshes.
func (f *filled) check(t *testing.T) {
	t.Helper()
	parallel(64, len(f.ids), func(i int) {
		found, err := f.issuer.policy.Sessions.Load(f.ctx, f.ids[i])
		if want := f.generations[i].Load(); err != nil || found.Generation != want {
			t.Errorf("session %d is at generation %d after %d refreshes: %v", i, found.Generation, want-1, err)
		}
	})
}

// steadily begins n calls at a rate that does not wait for them, and waits for their ends.
// Each has its moment from the start on: one that comes late makes the next ones no later.
func steadily(ctx context.Context, perSecond, n int, call func(i int)) {
	var group sync.WaitGroup
	defer group.Wait()
	for i, began := 0, time.Now(); i < n; i++ {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return
		}
		group.Go(func() { call(i) })
	}
}

// parallel makes n calls, some at once.
func parallel(atOnce, n int, call func(i int)) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range atOnce {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				call(i)
			}
		})
	}
	group.Wait()
}
