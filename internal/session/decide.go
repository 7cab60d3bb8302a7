// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// OnReuse is what theft does to the session, as in the API.
type OnReuse string

// The answers to a reused token.
const (
	// OnReuseRevoke ends the session for thief and owner alike (RFC 9700 section 4.14.2).
	OnReuseRevoke OnReuse = "RevokeSession"
	// OnReuseDeny only refuses the reused token.
	OnReuseDeny OnReuse = "Deny"
)

// Policy is what a TokenPolicy says about sessions.
type Policy struct {
	// TTL is the life of an access token.
	TTL time.Duration
	// IdleTimeout ends a session that was not refreshed for this long, AbsoluteTimeout
	// ends it this long after the login. Both are as the policy says now: shortening
	// them ends sessions at once; lengthening AbsoluteTimeout does not prolong those
	// that exist.
	IdleTimeout, AbsoluteTimeout time.Duration
	// ReuseGrace is how long the previous token may be presented again. It is measured
	// from one issuer's clock to another's, without Leeway: where those differ by more
	// than it, requests that come side by side with one expired token look like theft.
	ReuseGrace time.Duration
	// Leeway is the clock difference that every check allows.
	Leeway time.Duration
	// OnReuse is OnReuseRevoke when empty.
	OnReuse OnReuse
}

// Presented is the token of a refresh: verified, but for its expiry.
type Presented struct {
	Generation int64
	TokenID    string
	ExpiresAt  time.Time
	// WasCurrent says that it was the session's current token at a moment after it was
	// presented. It is then no reuse, however long the decision has taken since.
	WasCurrent bool
	// SentAt is when it was on its way at the latest, by an issuer's clock; zero when nobody
	// knows, which is as now. A request may have waited for long, in a network or for a
	// process that stood still, and what it brings was perhaps current when it was sent.
	SentAt time.Time
}

// mayHaveBeenGood says that p, which is older than the current token of s, may have been
// the current one or within its grace when it was sent. Times of rotations are cut to the
// second. When the token before the previous one was replaced is known, of older ones it is
// not.
func (p Presented) mayHaveBeenGood(s Session, pol Policy) bool {
	until := s.Previous.IssuedAt
	switch p.Generation {
	case s.Generation - 1:
		if !s.Previous.Is(p.TokenID) {
			return false // it never was
		}
		until = s.graceEnd(pol)
	case s.Generation - 2:
		until = earlier(s.RotatedAt, graceEnd(s.Previous.IssuedAt, p.ExpiresAt, pol))
	}
	return !p.SentAt.IsZero() && p.SentAt.Before(until.Add(time.Second))
}

// Action is what a refresh comes to.
type Action string

// The actions.
const (
	// ActionRotate: swap Next in, then answer with its current token.
	ActionRotate Action = "Rotate"
	// ActionReplay: answer with the current token of Next, which is the session as it
	// was; nothing is stored.
	ActionReplay Action = "Replay"
	// ActionDeny: refuse with Reason; nothing is stored.
	ActionDeny Action = "Deny"
	// ActionRevoke: swap Next in, then refuse with Reason.
	ActionRevoke Action = "Revoke"
)

// Verdict is the outcome of a decision.
type Verdict struct {
	Action Action
	// Next is the session to swap in for Rotate and Revoke, and the unchanged session
	// otherwise. After Rotate its Current has ID and times; the caller adds KeyID and Claims.
	Next Session
	// Reason is set for Deny and Revoke.
	Reason token.Reason
}

// Decide says what a refresh with p does to s at now (design section 4). It is pure.
// The token newTokenID is used if a new one is made.
//
// In this order:
//
//  1. A session that is revoked, idle for too long or past its end: Deny.
//  2. The current token: Rotate. When the current token lives as long as the session
//     does, a new one could not live longer, and it is a Replay: else every request
//     in a session's last moments would write to the store.
//  3. The previous token within the grace, or that was current when it was presented:
//     Replay. When the current token has died meanwhile the replay would be of no use, and
//     it is the Rotate that would follow.
//  4. An older token: Deny while it has not expired itself, so that an early refresh
//     never does harm, and if it was current when it was presented, or may have been good
//     when it was sent. Theft otherwise: Revoke, or Deny if the policy says so.
//  5. A newer token than the store knows, or another one of the same generation: we
//     signed it, so the store went back to an older state, and what it knows of the
//     session, revocations included, cannot be trusted: Revoke, whatever the policy says.
//
// s must have been read after p was presented, as [Store.Load] promises.
func Decide(s Session, p Presented, now time.Time, pol Policy, newTokenID string) Verdict {
	now = seconds(now)
	if reason, ended := s.Ended(now, pol); ended {
		return Verdict{Action: ActionDeny, Next: s, Reason: reason}
	}
	switch {
	case p.Generation == s.Generation && s.Current.Is(p.TokenID):
		if !s.Current.ExpiresAt.Before(s.end(pol)) {
			return replay(s)
		}
		return rotate(s, now, pol, newTokenID)

	case p.Generation == s.Generation-1 && s.Previous.Is(p.TokenID) && (p.WasCurrent || !now.After(s.graceEnd(pol))):
		if expired(s.Current.ExpiresAt, now, pol) {
			return rotate(s, now, pol, newTokenID)
		}
		return replay(s)

	case p.Generation < s.Generation:
		if pol.OnReuse == OnReuseDeny || p.WasCurrent || p.mayHaveBeenGood(s, pol) || !expired(p.ExpiresAt, now, pol) {
			return Verdict{Action: ActionDeny, Next: s, Reason: token.TokenReused}
		}
		return Verdict{Action: ActionRevoke, Next: s.Revoke(token.TokenReused, now), Reason: token.TokenReused}

	default:
		next := s.Revoke(token.SessionRevoked, now)
		next.TokensUntil = later(next.TokensUntil, p.ExpiresAt) // the store has forgotten that it issued p
		return Verdict{Action: ActionRevoke, Next: next, Reason: token.SessionRevoked}
	}
}

// Ended reports whether the session cannot be refreshed any more at now, whatever is
// presented, and why. It is the one place that knows when a session ends.
func (s Session) Ended(now time.Time, pol Policy) (token.Reason, bool) {
	now = seconds(now)
	switch {
	case s.Revoked != nil:
		return token.SessionRevoked, true
	case expired(s.end(pol), now, pol), expired(s.LastRefreshAt.Add(pol.IdleTimeout), now, pol):
		return token.SessionExpired, true
	}
	return "", false
}

// end is the absolute end: the one fixed at login, or an earlier one if the policy
// was tightened since.
func (s Session) end(pol Policy) time.Time {
	return earlier(s.ExpiresAt, seconds(s.CreatedAt.Add(pol.AbsoluteTimeout)))
}

// graceEnd is until when the previous token may be replayed. An early refresh whose
// answer was lost leaves the client with a token that is good for a while yet; the
// grace counts from when that token is refused, or the client that goes on using it
// in good faith would be taken for a thief.
func (s Session) graceEnd(pol Policy) time.Time {
	return graceEnd(s.RotatedAt, s.Previous.ExpiresAt, pol)
}

func graceEnd(replaced, expires time.Time, pol Policy) time.Time {
	return later(replaced, expires.Add(pol.Leeway)).Add(pol.ReuseGrace)
}

func expired(at, now time.Time, pol Policy) bool { return now.After(at.Add(pol.Leeway)) }

func replay(s Session) Verdict { return Verdict{Action: ActionReplay, Next: s} }

func rotate(s Session, now time.Time, pol Policy, newTokenID string) Verdict {
	next := s
	next.ExpiresAt = s.end(pol)
	next.Previous = Issued{ID: s.Current.ID, IssuedAt: s.Current.IssuedAt, ExpiresAt: s.Current.ExpiresAt}
	next.RotatedAt = now
	return Verdict{Action: ActionRotate, Next: next.issue(now, pol, newTokenID)}
}
