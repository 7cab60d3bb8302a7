// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

var (
	login  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	policy = session.Policy{
		TTL: 5 * time.Minute, IdleTimeout: time.Hour, AbsoluteTimeout: 3 * time.Hour,
		ReuseGrace: 10 * time.Second, Leeway: 30 * time.Second,
	}
)

func presented(s session.Session) session.Presented {
	return session.Presented{Generation: s.Generation, TokenID: s.Current.ID, ExpiresAt: s.Current.ExpiresAt}
}

// wasCurrent is the session's token for a decision that comes late.
func wasCurrent(s session.Session) session.Presented {
	p := presented(s)
	p.WasCurrent = true
	return p
}

// refresh is a rotation that must succeed.
func refresh(t *testing.T, s session.Session, at time.Time, tokenID string) session.Session {
	t.Helper()
	v := session.Decide(s, presented(s), at, policy, tokenID)
	if v.Action != session.ActionRotate {
		t.Fatalf("refresh with the current token at %s: %s %s", at, v.Action, v.Reason)
	}
	v.Next.Current.KeyID, v.Next.Current.Claims = "key", json.RawMessage(`{"a":1}`)
	return v.Next
}

// sent is the session's token in a request that was sent at a time and comes late.
func sent(s session.Session, at time.Time) session.Presented {
	p := presented(s)
	p.SentAt = at
	return p
}

func TestDecide(t *testing.T) {
	first := session.New("policy", "alice", login, policy, "one")
	// The first token is refused from 12:05:30; it is refreshed at 12:10.
	rotatedAt := login.Add(10 * time.Minute)
	second := refresh(t, first, rotatedAt, "two")
	third := refresh(t, second, rotatedAt.Add(10*time.Minute), "three")
	// An early refresh, 20 seconds before the token expires.
	early := refresh(t, first, login.Add(4*time.Minute+40*time.Second), "two")
	revoked := second.Revoke(token.UserDisabled, rotatedAt)
	lastly := second
	lastly.Current.ExpiresAt = second.ExpiresAt

	after := func(from time.Time, d time.Duration) time.Time { return from.Add(d) }
	tests := map[string]struct {
		session session.Session
		shown   session.Presented
		at      time.Time
		policy  func(*session.Policy)
		action  session.Action
		reason  token.Reason
	}{
		"the current token rotates":                            {session: second, shown: presented(second), at: after(rotatedAt, 6*time.Minute), action: session.ActionRotate},
		"the current token rotates before it expires":          {session: second, shown: presented(second), at: after(rotatedAt, time.Second), action: session.ActionRotate},
		"an issuer whose clock is behind rotates all the same": {session: second, shown: presented(second), at: after(rotatedAt, -10*time.Minute), action: session.ActionRotate},

		"the previous token is replayed":                               {session: second, shown: presented(first), at: after(rotatedAt, 9*time.Second), action: session.ActionReplay},
		"the grace includes its last second":                           {session: second, shown: presented(first), at: after(rotatedAt, 10*time.Second+999*time.Millisecond), action: session.ActionReplay},
		"the previous token after the grace is theft":                  {session: second, shown: presented(first), at: after(rotatedAt, 11*time.Second), action: session.ActionRevoke, reason: token.TokenReused},
		"theft is only denied where the policy says so":                {session: second, shown: presented(first), at: after(rotatedAt, 11*time.Second), policy: func(p *session.Policy) { p.OnReuse = session.OnReuseDeny }, action: session.ActionDeny, reason: token.TokenReused},
		"after an early refresh the grace counts from the token's end": {session: early, shown: presented(first), at: after(login, 5*time.Minute+40*time.Second), action: session.ActionReplay},
		"and ends": {session: early, shown: presented(first), at: after(login, 5*time.Minute+41*time.Second), action: session.ActionRevoke, reason: token.TokenReused},
		"another token of the previous generation has no grace":         {session: second, shown: session.Presented{Generation: 1, TokenID: "other", ExpiresAt: first.Current.ExpiresAt}, at: rotatedAt, action: session.ActionRevoke, reason: token.TokenReused},
		"without grace the previous token is theft a second later":      {session: second, shown: presented(first), at: after(rotatedAt, time.Second), policy: func(p *session.Policy) { p.ReuseGrace = 0 }, action: session.ActionRevoke, reason: token.TokenReused},
		"a replay of a token that has died since would be of no use":    {session: second, shown: presented(first), at: after(rotatedAt, 5*time.Minute+31*time.Second), policy: func(p *session.Policy) { p.ReuseGrace = 10 * time.Minute }, action: session.ActionRotate},
		"a token that was current when it was presented needs no grace": {session: second, shown: wasCurrent(first), at: after(rotatedAt, time.Minute), action: session.ActionReplay},
		"nor is it theft when the session has gone further":             {session: third, shown: wasCurrent(first), at: after(rotatedAt, time.Hour), action: session.ActionDeny, reason: token.TokenReused},
		"nor is it theft when it was sent before it was replaced":       {session: second, shown: sent(first, after(rotatedAt, -time.Second)), at: after(rotatedAt, time.Minute), action: session.ActionDeny, reason: token.TokenReused},
		"nor when it was sent within the grace":                         {session: second, shown: sent(first, after(rotatedAt, 9*time.Second)), at: after(rotatedAt, time.Minute), action: session.ActionDeny, reason: token.TokenReused},
		"the last second of the grace is in doubt":                      {session: second, shown: sent(first, after(rotatedAt, 10*time.Second+999*time.Millisecond)), at: after(rotatedAt, time.Minute), action: session.ActionDeny, reason: token.TokenReused},
		"the next one is not":                                           {session: second, shown: sent(first, after(rotatedAt, 11*time.Second)), at: after(rotatedAt, time.Minute), action: session.ActionRevoke, reason: token.TokenReused},
		"sent within a grace of long ago":                               {session: third, shown: sent(first, after(rotatedAt, 9*time.Second)), at: after(rotatedAt, 20*time.Minute), action: session.ActionDeny, reason: token.TokenReused},
		"sent before it was replaced, and the session has gone further": {session: third, shown: sent(first, after(rotatedAt, -time.Second)), at: after(rotatedAt, time.Hour), action: session.ActionDeny, reason: token.TokenReused},
		"sent between the two rotations it is theft":                    {session: third, shown: sent(first, after(rotatedAt, time.Minute)), at: after(rotatedAt, 10*time.Minute), action: session.ActionRevoke, reason: token.TokenReused},
		"a token that never was current is theft whenever it was sent":  {session: second, shown: session.Presented{Generation: 1, TokenID: "other", ExpiresAt: first.Current.ExpiresAt, SentAt: login}, at: rotatedAt, action: session.ActionRevoke, reason: token.TokenReused},
		"a newer token than the store knows, too":                       {session: first, shown: sent(second, login), at: rotatedAt, action: session.ActionRevoke, reason: token.SessionRevoked},
		"an older token is theft":                                       {session: third, shown: presented(first), at: after(rotatedAt, 10*time.Minute), action: session.ActionRevoke, reason: token.TokenReused},
		"an older token that has not expired is denied and nobody hurt": {session: third, shown: session.Presented{Generation: 1, TokenID: "one", ExpiresAt: after(rotatedAt, time.Hour)}, at: after(rotatedAt, 10*time.Minute), action: session.ActionDeny, reason: token.TokenReused},
		"the leeway counts as not expired":                              {session: third, shown: session.Presented{Generation: 1, TokenID: "one", ExpiresAt: after(rotatedAt, 9*time.Minute+30*time.Second)}, at: after(rotatedAt, 10*time.Minute), action: session.ActionDeny, reason: token.TokenReused},

		"a newer token than the store knows revokes":               {session: first, shown: presented(second), at: rotatedAt, action: session.ActionRevoke, reason: token.SessionRevoked},
		"whatever the policy says about reuse":                     {session: first, shown: presented(second), at: rotatedAt, policy: func(p *session.Policy) { p.OnReuse = session.OnReuseDeny }, action: session.ActionRevoke, reason: token.SessionRevoked},
		"another token of the same generation revokes":             {session: second, shown: session.Presented{Generation: 2, TokenID: "other", ExpiresAt: second.Current.ExpiresAt}, at: rotatedAt, action: session.ActionRevoke, reason: token.SessionRevoked},
		"a token without an ID is never the current one":           {session: session.Session{Generation: 1, CreatedAt: login, LastRefreshAt: login, ExpiresAt: login.Add(3 * time.Hour)}, shown: session.Presented{Generation: 1}, at: login, action: session.ActionRevoke, reason: token.SessionRevoked},
		"a revoked session denies its current token":               {session: revoked, shown: presented(second), at: rotatedAt, action: session.ActionDeny, reason: token.SessionRevoked},
		"a revoked session denies a replay":                        {session: revoked, shown: presented(first), at: rotatedAt, action: session.ActionDeny, reason: token.SessionRevoked},
		"an idle session rotates to the last second of the leeway": {session: second, shown: presented(second), at: after(rotatedAt, time.Hour+30*time.Second), action: session.ActionRotate},
		"then it has expired":                                      {session: second, shown: presented(second), at: after(rotatedAt, time.Hour+31*time.Second), action: session.ActionDeny, reason: token.SessionExpired},
		"theft from an expired session is an expired session":      {session: second, shown: presented(first), at: after(rotatedAt, 2*time.Hour), action: session.ActionDeny, reason: token.SessionExpired},
		"the absolute end comes to a busy session":                 {session: lastly, shown: presented(lastly), at: after(login, 3*time.Hour+31*time.Second), policy: func(p *session.Policy) { p.IdleTimeout = 24 * time.Hour }, action: session.ActionDeny, reason: token.SessionExpired},
		"a token that lives as long as the session is not rotated": {session: lastly, shown: presented(lastly), at: after(login, 2*time.Hour), policy: func(p *session.Policy) { p.IdleTimeout = 24 * time.Hour }, action: session.ActionReplay},
		"a shorter absolute timeout holds for sessions that exist": {session: second, shown: presented(second), at: after(login, 31*time.Minute), policy: func(p *session.Policy) { p.AbsoluteTimeout = 30 * time.Minute }, action: session.ActionDeny, reason: token.SessionExpired},
		"a longer one does not":                                    {session: lastly, shown: presented(lastly), at: after(login, 4*time.Hour), policy: func(p *session.Policy) { p.IdleTimeout, p.AbsoluteTimeout = 24*time.Hour, 24*time.Hour }, action: session.ActionDeny, reason: token.SessionExpired},
		"a shorter idle timeout holds for sessions that exist":     {session: second, shown: presented(second), at: after(rotatedAt, 11*time.Minute), policy: func(p *session.Policy) { p.IdleTimeout = 10 * time.Minute }, action: session.ActionDeny, reason: token.SessionExpired},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := policy
			if test.policy != nil {
				test.policy(&p)
			}
			v := session.Decide(test.session, test.shown, test.at, p, "new")
			if v.Action != test.action || v.Reason != test.reason {
				t.Fatalf("got %s %s, want %s %s", v.Action, v.Reason, test.action, test.reason)
			}
			if v.Action == session.ActionReplay || v.Action == session.ActionDeny {
				if diff := cmp.Diff(test.session, v.Next); diff != "" {
					t.Errorf("the session changed:\n%s", diff)
				}
			}
			if v.Action == session.ActionRevoke && (v.Next.Revoked == nil || v.Next.Revoked.Reason != test.reason) {
				t.Errorf("revoked as %+v", v.Next.Revoked)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	first := session.New("policy", "alice", login.Add(300*time.Millisecond), policy, "one")
	first.Current.KeyID, first.Current.Claims, first.Version = "key", json.RawMessage(`{"a":1}`), "v1"
	at := login.Add(2*time.Hour + 57*time.Minute)
	first.LastRefreshAt = at.Add(-time.Minute)
	v := session.Decide(first, presented(first), at.Add(700*time.Millisecond), policy, "two")
	want := session.Session{
		ID: first.ID, Policy: "policy", Subject: "alice", Generation: 2, Version: "v1",
		// The session ends in three minutes, so the token does, too.
		Current:   session.Issued{ID: "two", IssuedAt: at, ExpiresAt: login.Add(3 * time.Hour)},
		Previous:  session.Issued{ID: "one", IssuedAt: login, ExpiresAt: login.Add(5 * time.Minute)},
		RotatedAt: at, CreatedAt: login, LastRefreshAt: at, IdleUntil: at.Add(time.Hour),
		ExpiresAt: login.Add(3 * time.Hour), TokensUntil: login.Add(3 * time.Hour),
	}
	if diff := cmp.Diff(session.Verdict{Action: session.ActionRotate, Next: want}, v); diff != "" {
		t.Errorf("rotation (-want +got):\n%s", diff)
	}
}

func TestRevocationOutlivesTheTokenThatARestoredStoreForgot(t *testing.T) {
	restored := session.New("policy", "alice", login, policy, "one")
	lost := session.Presented{Generation: 7, TokenID: "seven", ExpiresAt: login.Add(2 * time.Hour)}
	v := session.Decide(restored, lost, login.Add(time.Minute), policy, "unused")
	if want := lost.ExpiresAt.Add(session.MaxLeeway); v.Action != session.ActionRevoke || v.Next.ForgetAfter().Before(want) {
		t.Errorf("%s, forgotten after %s: the presented token lives until %s", v.Action, v.Next.ForgetAfter(), want)
	}
}

func TestForgetting(t *testing.T) {
	s := session.New("policy", "alice", login, policy, "one")
	if want := login.Add(time.Hour + session.MaxLeeway); !s.KeepUntil().Equal(want) {
		t.Errorf("an idle session is kept until %s, not %s", s.KeepUntil(), want)
	}
	revoked := s.Revoke(token.SessionRevoked, login)
	if want := login.Add(5*time.Minute + session.MaxLeeway); !revoked.KeepUntil().Equal(want) || !revoked.ForgetAfter().Equal(want) {
		t.Errorf("a revoked session is kept until %s, its revocation until %s, not %s", revoked.KeepUntil(), revoked.ForgetAfter(), want)
	}
	// The ttl is cut from a day to a minute: the first token outlives its successors,
	// and so must the revocation.
	long, short := policy, policy
	long.TTL, long.IdleTimeout, long.AbsoluteTimeout, short.TTL, short.AbsoluteTimeout = 24*time.Hour, 48*time.Hour, 96*time.Hour, time.Minute, 96*time.Hour
	s = session.New("policy", "alice", login, long, "one")
	for _, id := range []string{"two", "three"} {
		s = session.Decide(s, presented(s), login, short, id).Next
	}
	if want := login.Add(24*time.Hour + session.MaxLeeway); !s.ForgetAfter().Equal(want) {
		t.Errorf("a revocation is forgotten after %s, not %s", s.ForgetAfter(), want)
	}
}
