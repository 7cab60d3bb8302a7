// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// MaxLeeway is the largest clock difference that a policy may allow (design section
// 3). What must outlive every token of a session, whichever leeway a verifier has,
// is kept this much longer.
const MaxLeeway = time.Minute

// ID names a session. It is 128 random bits, and is the claim "sid" of its tokens;
// knowing it gives no access.
type ID string

// NewID returns an ID that was never used before.
func NewID() ID { return ID(random()) }

// NewTokenID returns a token ID (the claim "jti", RFC 7519 section 4.1.7) that was
// never used before.
func NewTokenID() string { return random() }

func random() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, it ends the program instead (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// PolicyID is the UID of a TokenPolicy. A policy that is deleted and made again is
// another one, and does not inherit the sessions.
type PolicyID string

// Issued is an access token as it was minted: enough to mint it again, byte for
// byte, with the same key.
type Issued struct {
	// ID is the claim "jti".
	ID string
	// IssuedAt and ExpiresAt are the claims "iat" and "exp", in whole seconds.
	IssuedAt, ExpiresAt time.Time
	// KeyID is the key that signed it.
	KeyID string
	// Claims are the extra claims as a JSON object, as they were minted. A user's
	// attributes may have changed since; a replay must not show it.
	Claims json.RawMessage
}

// Is reports whether i is the token with that ID.
func (i Issued) Is(tokenID string) bool { return i.ID != "" && i.ID == tokenID }

// Revocation is the end of a session before its time.
type Revocation struct {
	At time.Time
	// Reason is why: TokenReused, UserDisabled, or SessionRevoked for a logout, an
	// administrator's order and a store that went back.
	Reason token.Reason
}

// Session is the server side of a login. Its zero value is no session. It is a
// value: nothing in it is changed in place.
type Session struct {
	ID      ID
	Policy  PolicyID
	Subject string

	// Generation counts the tokens of the session, from 1 at login; it is the claim "gen".
	Generation int64
	// Current is the token of this generation, Previous the one before it: zero
	// before the first rotation, and without KeyID and Claims, it is never minted again.
	Current, Previous Issued

	// RotatedAt is when Current replaced Previous; zero before the first rotation.
	RotatedAt time.Time
	CreatedAt time.Time
	// LastRefreshAt is the login or the last rotation. A replay does not move it.
	LastRefreshAt time.Time
	// IdleUntil is LastRefreshAt and the idle timeout of that moment. It only tells a
	// store when it may forget; [Decide] goes by the policy's present idle timeout.
	IdleUntil time.Time
	// ExpiresAt is the absolute end. No token lives longer.
	ExpiresAt time.Time
	// TokensUntil is the latest expiry of any token of the session. It is not always
	// the current token's: a policy's ttl may have been shortened.
	TokensUntil time.Time

	// Revoked is nil for a live session.
	Revoked *Revocation

	// Version is set by the store and opaque: it changes with every swap.
	Version string
}

// New is the session of a login at now, with its first token. The caller adds KeyID
// and Claims of Current.
func New(policy PolicyID, subject string, now time.Time, pol Policy, tokenID string) Session {
	now = seconds(now)
	s := Session{
		ID: NewID(), Policy: policy, Subject: subject,
		CreatedAt: now, ExpiresAt: now.Add(pol.AbsoluteTimeout),
	}
	return s.issue(now, pol, tokenID)
}

// issue makes the next generation's token. Its life is capped by the session's
// absolute end: an access token that outlived its session would be accepted by
// every sidecar, and nobody would know the session any more to revoke it.
func (s Session) issue(now time.Time, pol Policy, tokenID string) Session {
	s.Generation++
	s.Current = Issued{ID: tokenID, IssuedAt: now, ExpiresAt: earlier(seconds(now.Add(pol.TTL)), s.ExpiresAt)}
	s.LastRefreshAt = now
	s.IdleUntil = seconds(now.Add(pol.IdleTimeout))
	s.TokensUntil = later(s.TokensUntil, s.Current.ExpiresAt)
	return s
}

// Revoke is the session with its end at now. The first revocation stays: revoking a
// revoked session changes nothing. What only a replay would need is dropped.
func (s Session) Revoke(reason token.Reason, now time.Time) Session {
	if s.Revoked != nil {
		return s
	}
	s.Revoked = &Revocation{At: seconds(now), Reason: reason}
	s.Current.Claims = nil
	return s
}

// RevokedLike is the session with the revocation of another state of it, which must be
// revoked, for as long as any token that the other state knows is alive.
func (s Session) RevokedLike(other Session) Session {
	revoked := s.Revoke(other.Revoked.Reason, other.Revoked.At)
	if s.Revoked == nil {
		revoked.TokensUntil = later(s.TokensUntil, other.TokensUntil)
	}
	return revoked
}

// ForgetAfter is when the last token of the session is dead at every verifier. A
// revocation is of no more use after it.
func (s Session) ForgetAfter() time.Time {
	return later(s.TokensUntil, later(s.Current.ExpiresAt, s.Previous.ExpiresAt)).Add(MaxLeeway)
}

// KeepUntil is when a store may forget the session: it can neither be refreshed nor
// has it a token that a revocation would have to reach.
func (s Session) KeepUntil() time.Time {
	if s.Revoked != nil {
		return s.ForgetAfter()
	}
	end := s.ExpiresAt
	if !s.IdleUntil.IsZero() {
		end = earlier(end, s.IdleUntil)
	}
	return later(end.Add(MaxLeeway), s.ForgetAfter())
}

func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
