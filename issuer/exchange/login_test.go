// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/refusal"
)

func TestALoginMakesASessionAndItsFirstToken(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	got := f.login(t)
	claims := f.claims(t, got.Raw)
	want := &token.Claims{
		Issuer: "https://shop.example.com", Subject: "alice", Audience: []string{"shop-api"},
		ExpiresAt: start.Add(ttl), IssuedAt: start,
		ID: claims.ID, SessionID: string(got.Session), ClientID: "shop/web", Generation: 1,
		Extra: map[string]any{"role": "admin"}, // the user has no team, and phone is not mapped
	}
	if diff := cmp.Diff(want, claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	stored := f.stored(t, got.Session)
	if !stored.Current.Is(claims.ID) || stored.Subject != "alice" || stored.Current.KeyID != f.policy.Keys.Active.Public().ID {
		t.Errorf("stored %+v", stored)
	}
}

// slow checks passwords for so long that an order comes meanwhile.
type slow struct {
	*fixture
	users.Source
}

func (s slow) Authenticate(ctx context.Context, fields map[string]string) (users.User, error) {
	s.pass(5 * time.Second)
	return s.Source.Authenticate(ctx, fields)
}

func TestASessionIsAsOldAsItsLogin(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	f.policy.Users = slow{f, f.policy.Users}
	asked := f.now()
	got := f.login(t)
	stored := f.stored(t, got.Session)
	if !stored.CreatedAt.Equal(asked) || !stored.Current.IssuedAt.Equal(asked.Add(5*time.Second)) {
		t.Errorf("asked for at %v: made at %v, its token at %v", asked, stored.CreatedAt, stored.Current.IssuedAt)
	}
	if !(session.Selection{Subject: stored.Subject, CreatedUntil: asked.Add(time.Second)}).Includes(stored) {
		t.Error("an order that came while the password was checked does not end it")
	}
}

func TestALoginIsRefused(t *testing.T) {
	full := session.ErrFull
	outage := errors.New("connection refused to canary")
	right := map[string]string{"id": "alice", "password": "right"}
	tests := map[string]struct {
		fields map[string]string
		break_ func(*fixture)
		reason token.Reason
		status int
	}{
		"wrong password":     {map[string]string{"id": "alice", "password": "wrong"}, nil, token.CredentialsInvalid, 0},
		"no such user":       {map[string]string{"id": "mallory", "password": "right"}, nil, token.CredentialsInvalid, 0},
		"disabled":           {right, func(f *fixture) { f.users.set("alice", users.User{Subject: "alice", Disabled: true}) }, token.CredentialsInvalid, 0},
		"field missing":      {map[string]string{"id": "alice"}, nil, token.RequestInvalid, 400},
		"field unknown":      {map[string]string{"id": "alice", "password": "right", "otp": "1"}, nil, token.RequestInvalid, 400},
		"users out of reach": {right, func(f *fixture) { f.users.fail(outage) }, token.IssuerUnavailable, 503},
		"too many logins":    {right, func(f *fixture) { f.users.fail(users.ErrBusy) }, token.RateLimited, 429},
		"store full":         {right, func(f *fixture) { f.store.fail.Store(&full) }, token.StoreFull, 503},
		"store out of reach": {right, func(f *fixture) { f.store.fail.Store(&outage) }, token.IssuerUnavailable, 503},
		"claims beyond a token": {right, func(f *fixture) {
			f.users.set("alice", users.User{Subject: "alice", Attributes: map[string]any{"role": strings.Repeat("r", 9000)}})
		}, token.IssuerUnavailable, 500},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, token.EdDSA, 1)
			if test.break_ != nil {
				test.break_(f)
			}
			got, err := f.issuers[0].Login(t.Context(), f.policy, test.fields, client)
			wantReason(t, err, test.reason, test.status)
			if got.Raw != "" {
				t.Error("there is a token all the same")
			}
			if detail := refusal.Of(err).Detail; strings.Contains(detail, "canary") || detail == "" {
				t.Errorf("detail %q", detail)
			}
		})
	}
}

func TestAnInvalidLoginNamesTheFieldsAndNoValues(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	_, err := f.issuers[0].Login(t.Context(), f.policy, map[string]string{"id": "alice", "pass": "hunter2", "hunter2 is my password": "x"}, client)
	detail := refusal.Of(err).Detail
	for _, want := range []string{"missing: password", `"pass"`, "a field whose name is not plain", "present exactly id, password"} {
		if !strings.Contains(detail, want) {
			t.Errorf("%q does not say %q", detail, want)
		}
	}
	if strings.Contains(detail, "hunter2") {
		t.Errorf("%q holds a value", detail)
	}
}

func TestATokenNeverOutlivesItsSession(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.policy.Session.AbsoluteTimeout = time.Minute
	if got := f.login(t); !got.ExpiresAt.Equal(start.Add(time.Minute)) {
		t.Errorf("expires at %v", got.ExpiresAt)
	}
}

func TestAFullStoreRefusesTheLogin(t *testing.T) {
	f := newFixture(t, token.EdDSA, 1)
	f.store.Store = memory.New("policy-uid", memory.Options{MaxSessions: 1, Now: f.now})
	f.login(t)
	_, err := f.issuers[0].Login(t.Context(), f.policy, map[string]string{"id": "alice", "password": "right"}, client)
	wantReason(t, err, token.StoreFull, 503)
	if refusal.Of(err).RetryAfter == 0 || f.observer.failures.Load() != 0 {
		t.Errorf("retry after %v, %d failures counted", refusal.Of(err).RetryAfter, f.observer.failures.Load())
	}
}
