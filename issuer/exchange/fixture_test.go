// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

var start = time.Unix(1_800_000_000, 0).UTC()

// client is where logins come from.
var client = netip.MustParseAddr("192.0.2.7")

const (
	ttl    = 5 * time.Minute
	leeway = 30 * time.Second
	grace  = 10 * time.Second
)

// people is a user source in memory. Every password is "right".
type people struct {
	mu       sync.Mutex
	users    map[string]users.User
	err      error
	lookedUp int
	// hashes is how many passwords were compared.
	hashes int
	// whileHashing runs for each login that gets that far.
	whileHashing func()
}

func (p *people) Authenticate(_ context.Context, fields map[string]string) (users.User, error) {
	if err := users.CheckFields(fields, []string{"password"}); err != nil {
		return users.User{}, err
	}
	p.mu.Lock()
	user, ok := p.users[fields["id"]]
	err, hook := p.err, p.whileHashing
	if err == nil {
		p.hashes++
	}
	p.mu.Unlock()
	if hook != nil {
		hook()
	}
	switch {
	case err != nil:
		return users.User{}, err
	case !ok:
		return users.User{}, users.ErrNoUser
	case user.Disabled, fields["password"] != "right":
		return users.User{}, users.NoUser(user.Subject)
	}
	return user, nil
}

func (p *people) hashed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hashes
}

func (p *people) Lookup(_ context.Context, subject string) (users.User, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookedUp++
	user, ok := p.users[subject]
	switch {
	case p.err != nil:
		return users.User{}, p.err
	case !ok:
		return users.User{}, users.ErrNoUser
	case user.Disabled:
		return users.User{}, users.ErrDisabled
	}
	return user, nil
}

func (p *people) set(id string, user users.User) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users[id] = user
}

func (p *people) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.users, id)
}

func (p *people) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// spy counts what reaches the store, and may break it.
type spy struct {
	session.Store
	swaps, swapped, stale atomic.Int32
	fail                  atomic.Pointer[error]
	// afterLoad runs between a load and what follows it.
	afterLoad atomic.Pointer[func()]
}

func (s *spy) broken() error {
	if err := s.fail.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *spy) Create(ctx context.Context, created session.Session) error {
	if err := s.broken(); err != nil {
		return err
	}
	return s.Store.Create(ctx, created)
}

func (s *spy) Load(ctx context.Context, id session.ID) (session.Session, error) {
	if err := s.broken(); err != nil {
		return session.Session{}, err
	}
	loaded, err := s.Store.Load(ctx, id)
	if hook := s.afterLoad.Load(); hook != nil {
		(*hook)()
	}
	return loaded, err
}

func (s *spy) Swap(ctx context.Context, next session.Session) (session.Session, error) {
	s.swaps.Add(1)
	if err := s.broken(); err != nil {
		return session.Session{}, err
	}
	stored, err := s.Store.Swap(ctx, next)
	switch {
	case errors.Is(err, session.ErrStale):
		s.stale.Add(1)
	case err == nil:
		s.swapped.Add(1)
	}
	return stored, err
}

// counter counts what reaches the counter of attempts, and may break it.
type counter struct {
	attempts.Counter

	mu           sync.Mutex
	takes, backs int
	// failTake is asked with the number of the Take, from 1.
	failTake func(nth int) error
	failBack error
}

func (c *counter) Take(ctx context.Context, key attempts.Key, limit attempts.Limit) (time.Duration, error) {
	c.mu.Lock()
	c.takes++
	var err error
	if c.failTake != nil {
		err = c.failTake(c.takes)
	}
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Counter.Take(ctx, key, limit)
}

func (c *counter) GiveBack(ctx context.Context, key attempts.Key, limit attempts.Limit) error {
	c.mu.Lock()
	c.backs++
	err := c.failBack
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.Counter.GiveBack(ctx, key, limit)
}

func (c *counter) calls() (takes, backs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takes, c.backs
}

type observer struct {
	failures atomic.Int32

	mu      sync.Mutex
	limited []exchange.Allowance
}

func (o *observer) StoreFailed(exchange.Operation) { o.failures.Add(1) }

func (o *observer) LoginLimited(by exchange.Allowance) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.limited = append(o.limited, by)
}

// fixture is a policy and a number of issuers that share its sessions.
type fixture struct {
	policy   *exchange.Policy
	users    *people
	store    *spy
	counter  *counter
	observer *observer
	clock    atomic.Int64
	issuers  []*exchange.Service
}

func newFixture(tb testing.TB, algorithm token.Algorithm, issuers int) *fixture {
	tb.Helper()
	f := &fixture{
		users:    &people{users: map[string]users.User{"alice": {Subject: "alice", Attributes: map[string]any{"role": "admin", "phone": "+82"}}}},
		observer: &observer{},
	}
	f.clock.Store(start.Unix())
	kept := memory.New("policy-uid", memory.Options{Now: f.now})
	f.store, f.counter = &spy{Store: kept}, &counter{Counter: kept}
	f.policy = &exchange.Policy{
		UID: "policy-uid", Namespace: "shop", Name: "web", Generation: 1,
		Issuer: "https://shop.example.com", Audiences: []string{"shop-api"},
		Claims: []exchange.ClaimMapping{{Claim: "role", Attribute: "role"}, {Claim: "team", Attribute: "team"}},
		Session: session.Policy{
			TTL: ttl, IdleTimeout: time.Hour, AbsoluteTimeout: 24 * time.Hour, ReuseGrace: grace, Leeway: leeway,
			OnReuse: session.OnReuseRevoke,
		},
		DenialStatus: 403, Keys: newKeys(tb, algorithm), Users: f.users, Sessions: f.store, Attempts: f.counter,
		PerAccount: attempts.Limit{Burst: 10, Interval: time.Minute},
		PerAddress: attempts.Limit{Burst: 100, Interval: time.Second},
	}
	for range issuers {
		f.issuers = append(f.issuers, exchange.NewService(f.now, session.NewTokenID, f.observer))
	}
	return f
}

func newKeys(tb testing.TB, algorithm token.Algorithm) exchange.Keys {
	tb.Helper()
	key, err := token.GenerateKey(algorithm, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	set, err := token.NewKeySet("key-uid", 1, []token.PublicKey{key.Public()})
	if err != nil {
		tb.Fatal(err)
	}
	return exchange.Keys{Set: set, Active: key, Private: map[string]*token.PrivateKey{key.Public().ID: key}}
}

func (f *fixture) now() time.Time { return time.Unix(f.clock.Load(), 0).UTC() }

func (f *fixture) pass(d time.Duration) { f.clock.Add(int64(d / time.Second)) }

// expire lets the newest token run out.
func (f *fixture) expire() { f.pass(ttl + leeway + time.Second) }

func (f *fixture) login(tb testing.TB) exchange.Token {
	tb.Helper()
	got, err := f.issuers[0].Login(tb.Context(), f.policy, map[string]string{"id": "alice", "password": "right"}, client)
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func (f *fixture) refresh(tb testing.TB, raw string) (exchange.Token, error) {
	tb.Helper()
	return f.issuers[0].Refresh(tb.Context(), f.policy, raw, time.Time{})
}

func (f *fixture) mustRefresh(tb testing.TB, raw string) exchange.Token {
	tb.Helper()
	got, err := f.refresh(tb, raw)
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func (f *fixture) claims(tb testing.TB, raw string) *token.Claims {
	tb.Helper()
	v := token.Verifier{Keys: f.policy.Keys.Set, Issuer: f.policy.Issuer, Audiences: f.policy.Audiences, Leeway: leeway}
	claims, err := v.Verify(raw, f.now())
	if err != nil {
		tb.Fatal(err)
	}
	return claims
}

func (f *fixture) stored(tb testing.TB, id session.ID) session.Session {
	tb.Helper()
	stored, err := f.store.Store.Load(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	return stored
}

func wantReason(tb testing.TB, err error, want token.Reason, status int) {
	tb.Helper()
	var refused *refusal.Error
	if !errors.As(err, &refused) || refused.Reason != want || refused.Status != status {
		tb.Errorf("got %v, want %s with status %d", err, want, status)
	}
}

func (o *observer) seen() []exchange.Allowance {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]exchange.Allowance(nil), o.limited...)
}
