// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

const (
	ttl    = 5 * time.Minute
	leeway = 30 * time.Second
	// grace is the longest that a policy may have, because the machine of a test may be
	// slow where the time is the real one.
	grace = time.Minute
)

// issuer is one replica: a service with a store instance and a user source of its own.
type issuer struct {
	policy  *exchange.Policy
	service *exchange.Service
	now     func() time.Time
}

// silent is told of failures that the answers tell of, too.
type silent struct{}

func (silent) StoreFailed(exchange.Operation)  {}
func (silent) LoginLimited(exchange.Allowance) {}

func newIssuer(a access, uid session.PolicyID, key *token.PrivateKey, now func() time.Time) (*issuer, func(), error) {
	set, err := token.NewKeySet("key-uid", 1, []token.PublicKey{key.Public()})
	if err != nil {
		return nil, nil, err
	}
	source, closeSource, err := a.source(now)
	if err != nil {
		return nil, nil, err
	}
	store, closeStore, err := a.open(uid, now)
	if err != nil {
		closeSource()
		return nil, nil, err
	}
	i := &issuer{now: now, service: exchange.NewService(now, session.NewTokenID, silent{}), policy: &exchange.Policy{
		UID: uid, Namespace: tenant, Name: "web", Generation: 1,
		Issuer: "https://shop.example.com", Audiences: []string{"shop-api"},
		Claims: []exchange.ClaimMapping{{Claim: "role", Attribute: "role"}},
		Session: session.Policy{
			TTL: ttl, Leeway: leeway, ReuseGrace: grace, OnReuse: session.OnReuseRevoke,
			IdleTimeout: 10000 * time.Hour, AbsoluteTimeout: 10000 * time.Hour,
		},
		DenialStatus: 403, Users: source, Sessions: store,
		Keys: exchange.Keys{Set: set, Active: key, Private: map[string]*token.PrivateKey{key.Public().ID: key}},
	}}
	return i, func() { i.service.Wait(); closeStore(); closeSource() }, nil
}

// newIssuers are replicas that end with the test.
func newIssuers(t *testing.T, a access, key *token.PrivateKey, now func() time.Time, n int) []*issuer {
	t.Helper()
	uid := storetest.NewPolicyID()
	replicas := make([]*issuer, n)
	for i := range replicas {
		replicas[i] = anotherIssuer(t, a, uid, key, now)
	}
	return replicas
}

func anotherIssuer(t *testing.T, a access, uid session.PolicyID, key *token.PrivateKey, now func() time.Time) *issuer {
	t.Helper()
	i, closeIssuer, err := newIssuer(a, uid, key, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeIssuer)
	return i
}

// login logs the one user in.
func (i *issuer) login(ctx context.Context) (exchange.Token, error) {
	return i.loginWith(ctx, map[string]string{"id": alice, "phone": phone})
}

func (i *issuer) loginWith(ctx context.Context, fields map[string]string) (exchange.Token, error) {
	return i.service.Login(ctx, i.policy, fields, netip.MustParseAddr("192.0.2.7"))
}

func (i *issuer) mustLogin(ctx context.Context, t *testing.T) exchange.Token {
	t.Helper()
	got, err := i.login(ctx)
	if err != nil {
		t.Fatalf("log in: %v", err)
	}
	return got
}

func (i *issuer) refresh(ctx context.Context, raw string) (exchange.Token, error) {
	return i.service.Refresh(ctx, i.policy, raw, time.Time{})
}

// claims of a token that this issuer has signed, expired or not.
func (i *issuer) claims(t *testing.T, raw string) *token.Claims {
	t.Helper()
	verifier := token.Verifier{Keys: i.policy.Keys.Set, Issuer: i.policy.Issuer, Audiences: i.policy.Audiences, Leeway: leeway}
	claims, err := verifier.VerifyForRefresh(raw, i.now())
	if err != nil {
		t.Fatalf("a token of our own: %v", err)
	}
	return claims
}

// same says whether two tokens are one: the same bytes, or, where a signature differs
// each time, the same "jti", "iat" and "exp".
func (i *issuer) same(t *testing.T, a, b string) bool {
	t.Helper()
	if a == b || i.policy.Keys.Active.Public().Algorithm != token.PS256 {
		return a == b
	}
	x, y := i.claims(t, a), i.claims(t, b)
	return x.ID == y.ID && x.IssuedAt.Equal(y.IssuedAt) && x.ExpiresAt.Equal(y.ExpiresAt)
}

// refusedWith is the reason of a refusal, or empty.
func refusedWith(err error) token.Reason {
	if refused, ok := errors.AsType[*refusal.Error](err); ok {
		return refused.Reason
	}
	return ""
}
