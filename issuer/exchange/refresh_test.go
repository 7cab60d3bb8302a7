// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/exchange"
)

func TestAnExpiredTokenBuysTheNextOne(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	f.expire()
	f.users.set("alice", users.User{Subject: "alice", Attributes: map[string]any{"role": "guest", "team": "a"}})
	second := f.mustRefresh(t, first.Raw)
	if second.How != exchange.Rotated || second.Raw == first.Raw {
		t.Errorf("got %s", second.How)
	}
	claims := f.claims(t, second.Raw)
	if claims.Generation != 2 || claims.SessionID != string(first.Session) || claims.Extra["role"] != "guest" || claims.Extra["team"] != "a" {
		t.Errorf("claims %+v; the attributes must be those of now", claims)
	}
	f.expire()
	if third := f.claims(t, f.mustRefresh(t, second.Raw).Raw); third.Generation != 3 {
		t.Errorf("generation %d", third.Generation)
	}
}

func TestAValidTokenMayBeExchangedEarly(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	f.pass(ttl - 20*time.Second)
	if got := f.mustRefresh(t, first.Raw); got.How != exchange.Rotated {
		t.Errorf("got %s", got.How)
	}
}

func TestUnderRejectOnlyAValidTokenIsExchanged(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	f.policy.RefuseExpired = true
	first := f.login(t)
	f.pass(ttl - time.Second)
	second := f.mustRefresh(t, first.Raw)
	f.expire()
	_, err := f.refresh(t, second.Raw)
	wantReason(t, err, token.TokenExpired, 0)
	if f.stored(t, first.Session).Revoked != nil {
		t.Error("the session was revoked")
	}
}

// A lost answer: the client comes again with the token it has.
func TestARetryWithinTheGraceGetsTheSameTokenByteForByte(t *testing.T) {
	for _, algorithm := range []token.Algorithm{token.ES256, token.EdDSA, token.RS256} {
		t.Run(string(algorithm), func(t *testing.T) {
			f := newFixture(t, algorithm, 2)
			first := f.login(t)
			f.expire()
			second := f.mustRefresh(t, first.Raw)
			f.pass(grace)
			// The user changed meanwhile; a replay must not show it. And it does not ask.
			f.users.fail(errors.New("connection refused"))
			again, err := f.issuers[1].Refresh(t.Context(), f.policy, first.Raw, time.Time{})
			if err != nil || again.How != exchange.Replayed || again.Raw != second.Raw {
				t.Errorf("%s, %v; the same token: %v", again.How, err, again.Raw == second.Raw)
			}
		})
	}
}

func TestAReplayAfterAKeyRotationIsSignedByTheActiveKey(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	f.expire()
	second := f.mustRefresh(t, first.Raw)
	old := f.policy.Keys
	next := newKeys(t, token.ES256)
	set, err := token.NewKeySet("key-uid", 2, []token.PublicKey{old.Active.Public(), next.Active.Public()})
	if err != nil {
		t.Fatal(err)
	}
	f.policy.Keys = exchange.Keys{Set: set, Active: next.Active, Private: next.Private} // the old private half is gone
	again := f.mustRefresh(t, first.Raw)
	a, b := f.claims(t, again.Raw), f.claims(t, second.Raw)
	if a.ID != b.ID || !a.ExpiresAt.Equal(b.ExpiresAt) || again.Raw == second.Raw {
		t.Errorf("claims %+v, want those of %+v under another key", a, b)
	}
}

func TestAThiefAfterTheGraceEndsTheSession(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	f.expire()
	second := f.mustRefresh(t, first.Raw)
	f.pass(grace + time.Second)
	_, err := f.refresh(t, first.Raw)
	wantReason(t, err, token.TokenReused, 0)
	_, err = f.refresh(t, second.Raw)
	wantReason(t, err, token.SessionRevoked, 0)
	if revoked := f.stored(t, first.Session).Revoked; revoked == nil || revoked.Reason != token.TokenReused {
		t.Errorf("revoked: %+v", revoked)
	}
}

// An issuer that stood still answers at last what was made again elsewhere long ago.
func TestARefreshThatComesLateEndsNoSession(t *testing.T) {
	f := newFixture(t, token.ES256, 2)
	f.policy.Session.ReuseGrace = time.Second
	first := f.login(t)
	f.expire()
	sentAt := f.now()
	second := f.mustRefresh(t, first.Raw)
	f.pass(5 * time.Second)
	late := func(raw string, reason token.Reason, status int) {
		t.Helper()
		_, err := f.issuers[1].Refresh(t.Context(), f.policy, raw, sentAt)
		wantReason(t, err, reason, status)
		if f.stored(t, first.Session).Revoked != nil {
			t.Fatal("the session was revoked")
		}
	}
	late(first.Raw, token.TokenReused, 0)
	f.expire()
	late(first.Raw, token.IssuerUnavailable, 503)
	late(second.Raw, token.IssuerUnavailable, 503)
	if got := f.stored(t, first.Session).Generation; got != 2 {
		t.Errorf("generation %d: a token was made for nobody", got)
	}
	f.mustRefresh(t, second.Raw)
	_, err := f.issuers[1].Refresh(t.Context(), f.policy, first.Raw, f.now())
	wantReason(t, err, token.TokenReused, 0)
	if f.stored(t, first.Session).Revoked == nil {
		t.Error("a thief's token, sent now, ends no session")
	}
}

func TestUnderDenyAThiefOnlyIsRefused(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	f.policy.Session.OnReuse = session.OnReuseDeny
	first := f.login(t)
	f.expire()
	second := f.mustRefresh(t, first.Raw)
	f.pass(grace + time.Second)
	_, err := f.refresh(t, first.Raw)
	wantReason(t, err, token.TokenReused, 0)
	f.mustRefresh(t, second.Raw)
}

func TestASessionEndsByIdlenessAndByAge(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	f.pass(time.Hour + leeway + time.Second)
	_, err := f.refresh(t, first.Raw)
	wantReason(t, err, token.SessionExpired, 0)
}

func TestARemovedOrDisabledUserIsRefusedAndTheSessionRevoked(t *testing.T) {
	for name, shut := range map[string]func(*people){
		"removed":  func(p *people) { p.remove("alice") },
		"disabled": func(p *people) { p.set("alice", users.User{Subject: "alice", Disabled: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, token.ES256, 1)
			first := f.login(t)
			f.expire()
			shut(f.users)
			_, err := f.refresh(t, first.Raw)
			wantReason(t, err, token.UserDisabled, 0)
			if revoked := f.stored(t, first.Session).Revoked; revoked == nil || revoked.Reason != token.UserDisabled {
				t.Errorf("revoked: %+v", revoked)
			}
			// Taking the user back does not bring the session back.
			f.users.set("alice", users.User{Subject: "alice"})
			_, err = f.refresh(t, first.Raw)
			wantReason(t, err, token.SessionRevoked, 0)
		})
	}
}

func TestAnOutageOfUsersOrStoreChangesNothing(t *testing.T) {
	outage := errors.New("connection refused")
	for name, part := range map[string]struct{ cut, mend func(*fixture) }{
		"users": {func(f *fixture) { f.users.fail(outage) }, func(f *fixture) { f.users.fail(nil) }},
		"store": {func(f *fixture) { f.store.fail.Store(&outage) }, func(f *fixture) { f.store.fail.Store(nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, token.ES256, 1)
			first := f.login(t)
			f.expire()
			before := f.stored(t, first.Session)
			part.cut(f)
			got, err := f.refresh(t, first.Raw)
			wantReason(t, err, token.IssuerUnavailable, 503)
			if got.Raw != "" {
				t.Error("a token was minted")
			}
			if after := f.stored(t, first.Session); after.Version != before.Version {
				t.Errorf("the session was changed: %+v", after)
			}
			part.mend(f)
			if got := f.mustRefresh(t, first.Raw); got.How != exchange.Rotated {
				t.Errorf("afterwards: %s", got.How)
			}
		})
	}
}

func TestOnlyExpiryMayBeWrong(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	f.expire()
	stranger := newFixture(t, token.ES256, 1)
	foreign := stranger.login(t)
	other := *f.policy
	other.Name = "admin" // shares issuer, audience and key
	tests := map[string]struct {
		policy *exchange.Policy
		raw    string
		want   token.Reason
	}{
		"signed by a key of somebody else": {f.policy, foreign.Raw, token.KeyUnknown},
		"signature changed":                {f.policy, first.Raw[:len(first.Raw)-8] + "AAAAAAAA", token.SignatureInvalid},
		"payload of another token":         {f.policy, splice(first.Raw, foreign.Raw), token.SignatureInvalid},
		"not a token":                      {f.policy, "canary", token.TokenMalformed},
		"too large":                        {f.policy, strings.Repeat("a", 9000), token.TokenTooLarge},
		"of another policy":                {&other, first.Raw, token.ClaimMismatch},
		"of another issuer":                {with(f.policy, func(p *exchange.Policy) { p.Issuer = "https://other.example.com" }), first.Raw, token.IssuerNotTrusted},
		"for another audience":             {with(f.policy, func(p *exchange.Policy) { p.Audiences = []string{"other"} }), first.Raw, token.AudienceMismatch},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := f.issuers[0].Refresh(t.Context(), test.policy, test.raw, time.Time{})
			wantReason(t, err, test.want, 0)
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error holds the token: %v", err)
			}
			err = f.issuers[0].Logout(t.Context(), test.policy, test.raw)
			wantReason(t, err, test.want, 0)
		})
	}
	if f.store.swaps.Load() != 0 {
		t.Error("something reached the store")
	}
	f.mustRefresh(t, first.Raw)
}

func with(p *exchange.Policy, change func(*exchange.Policy)) *exchange.Policy {
	changed := *p
	change(&changed)
	return &changed
}

// splice puts b's payload between a's header and signature.
func splice(a, b string) string {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	return x[0] + "." + y[1] + "." + x[2]
}

// The token is signed by us, names a session of ours, and not that of its subject:
// a store that mixed sessions up must not hand one user's session to another.
func TestATokenMustBelongToItsSession(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	f.users.set("bob", users.User{Subject: "bob"})
	alice := f.login(t)
	claims := f.claims(t, alice.Raw)
	claims.Subject = "bob"
	forged, err := f.policy.Keys.Active.Sign(*claims)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.refresh(t, forged)
	wantReason(t, err, token.ClaimMismatch, 0)
	if f.stored(t, alice.Session).Revoked != nil {
		t.Error("alice's session was revoked")
	}
}

func TestARestoredStoreIsNotBelieved(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	old := f.stored(t, first.Session)
	f.expire()
	second := f.mustRefresh(t, first.Raw)
	current := f.stored(t, first.Session)
	old.Version = current.Version
	if _, err := f.store.Store.Swap(t.Context(), old); err != nil { // the backup is put back
		t.Fatal(err)
	}
	f.expire()
	_, err := f.refresh(t, second.Raw)
	wantReason(t, err, token.SessionRevoked, 0)
	// As far as the restored store knew every token was dead. The end of the session stays
	// known for as long as the token lives that it did not know.
	_, err = f.refresh(t, first.Raw)
	wantReason(t, err, token.SessionRevoked, 0)
}

func TestAnUnknownSessionIsDenied(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	claims := f.claims(t, f.login(t).Raw)
	claims.SessionID = string(session.NewID())
	raw, err := f.policy.Keys.Active.Sign(*claims)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.refresh(t, raw)
	wantReason(t, err, token.SessionUnknown, 0)
}
