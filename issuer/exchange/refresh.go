// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// tooLate is how old a request may be: twice the time that a sidecar waits for the answer.
// Nobody gets the answer to an older one, and a token that nobody gets must not replace one
// that somebody has.
const tooLate = 10 * time.Second

// Refresh exchanges a token for its successor. However many calls present one token,
// over however many processes: one rotates the session, and all get the same token.
// SentAt is when the call was sent at the latest, by an issuer's clock, or zero: of calls
// that share an answer it is that of the first, so a call that came late takes nobody for
// a thief.
func (s *Service) Refresh(ctx context.Context, p *Policy, raw string, sentAt time.Time) (Token, error) {
	// RFC 7519 section 4.1.4 forbids an expired token; exchanging one is a profile of
	// its own, and only where the policy says so. Expiry is all that may be wrong.
	claims, err := p.verify(raw, s.now(), !p.RefuseExpired)
	if err != nil {
		return Token{}, err
	}
	if !sentAt.IsZero() && s.now().Sub(sentAt) > tooLate {
		return Token{}, refusal.Unavailable("the request was sent long ago", nil)
	}
	key := refreshKey{policy: p.UID, session: session.ID(claims.SessionID), generation: claims.Generation, token: claims.ID}
	arrived := s.moments.Add(1)
	for {
		got, joined, err := s.refreshes.Do(ctx, key, refreshTimeout, func(ctx context.Context) (shared, error) {
			began := s.moments.Add(1)
			answer, err := s.exchange(ctx, p, claims, sentAt)
			return shared{Token: answer, began: began}, err
		})
		switch {
		case !joined || err != nil:
			return got.Token, err
		case got.began > arrived:
			got.How = Joined
			return got.Token, nil
		}
		// The session was read before this call came, and may have moved on since: what
		// was the previous token then may be one too old now, which is theft. The next
		// flight begins after this call, so there is no third round.
	}
}

// shared is the answer of a flight, and when it began: it goes by what is stored after that.
type shared struct {
	Token
	began int64
}

func (s *Service) exchange(ctx context.Context, p *Policy, claims *token.Claims, sentAt time.Time) (Token, error) {
	presented := session.Presented{Generation: claims.Generation, TokenID: claims.ID, ExpiresAt: claims.ExpiresAt, SentAt: sentAt}
	for range maxAttempts {
		stored, err := s.load(ctx, p, claims)
		if err != nil {
			return Token{}, err
		}
		got, err := s.carryOut(ctx, p, stored, session.Decide(stored, presented, s.now(), p.Session, s.newTokenID()))
		if !errors.Is(err, session.ErrStale) {
			return got, err
		}
		// Another call has won while this one asked about the user. A user source that is
		// slower than the grace, or an issuer whose clock is ahead, must not make theft of it.
		presented.WasCurrent = presented.WasCurrent || stored.Current.Is(presented.TokenID)
	}
	return Token{}, contended()
}

// load reads the session that the token belongs to.
func (s *Service) load(ctx context.Context, p *Policy, claims *token.Claims) (session.Session, error) {
	stored, err := p.Sessions.Load(ctx, session.ID(claims.SessionID))
	if err != nil {
		return session.Session{}, s.storeError(Load, err)
	}
	if stored.Subject != claims.Subject || stored.Policy != p.UID {
		return session.Session{}, refusal.Denied(token.ClaimMismatch, "the token does not belong to its session")
	}
	return stored, nil
}

// carryOut does what was decided. session.ErrStale means that the session has moved
// on, and that the decision must be made again.
func (s *Service) carryOut(ctx context.Context, p *Policy, stored session.Session, verdict session.Verdict) (Token, error) {
	switch verdict.Action {
	case session.ActionRotate:
		return s.rotate(ctx, p, stored, verdict.Next)
	case session.ActionReplay:
		return p.answer(stored, Replayed)
	case session.ActionRevoke:
		if err := s.swap(ctx, p, verdict.Next); err != nil {
			return Token{}, err
		}
	case session.ActionDeny:
	}
	return Token{}, refusal.Denied(verdict.Reason, verdict.Reason.Title())
}

// rotate swaps in the next generation. The token is signed before the swap, so that
// a failure to sign leaves the session as it is; it is handed out after it.
func (s *Service) rotate(ctx context.Context, p *Policy, stored, next session.Session) (Token, error) {
	user, err := p.Users.Lookup(ctx, stored.Subject)
	switch {
	case errors.Is(err, users.ErrNoUser), errors.Is(err, users.ErrDisabled):
		if err := s.swap(ctx, p, stored.Revoke(token.UserDisabled, s.now())); err != nil {
			return Token{}, err
		}
		return Token{}, refusal.Denied(token.UserDisabled, token.UserDisabled.Title())
	case err != nil:
		return Token{}, refusal.Unavailable("the user source does not answer", err)
	}
	next.Current.KeyID = p.Keys.Active.Public().ID
	if next.Current.Claims, err = p.claimsOf(user); err != nil {
		return Token{}, err
	}
	rotated, err := p.answer(next, Rotated)
	if err != nil {
		return Token{}, err
	}
	if err := s.swap(ctx, p, next); err != nil {
		return Token{}, err
	}
	return rotated, nil
}

// swap passes session.ErrStale on and makes a refusal of any other error.
func (s *Service) swap(ctx context.Context, p *Policy, next session.Session) error {
	_, err := p.Sessions.Swap(ctx, next)
	if err == nil || errors.Is(err, session.ErrStale) {
		return err
	}
	return s.storeError(Swap, err)
}
