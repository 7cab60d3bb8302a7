// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// Identity is a caller whose token was verified. It is immutable.
type Identity struct {
	Claims *token.Claims
	// Headers are what the application is told, in the order of the settings.
	Headers []Header

	// notBefore is from when on the token is good, the leeway included.
	notBefore time.Time
}

// Header is a request header for the application.
type Header struct{ Name, Value string }

// Verify says who presents a token. A token that was verified before under the same
// settings and keys is taken from memory; its expiry and its session are looked at
// every time.
func (p *Policy) Verify(raw string, now time.Time) (*Identity, error) {
	id, ok := p.memory.get(raw)
	if !ok || p.verifier.Expired(id.Claims, now) || now.Before(id.notBefore) {
		claims, err := p.verifier.Verify(raw, now)
		if err != nil {
			return nil, err
		}
		headers, err := p.identityHeaders(claims)
		if err != nil {
			return nil, err
		}
		id = &Identity{Claims: claims, Headers: headers, notBefore: p.notBefore(claims)}
		p.memory.put(raw, id)
	}
	if p.sessions.Revoked(id.Claims.SessionID) {
		return nil, refusal(token.SessionRevoked, "the session was revoked")
	}
	return id, nil
}

// notBefore keeps a remembered token to the verifier's rules if the clock is set back.
func (p *Policy) notBefore(c *token.Claims) time.Time {
	t := c.IssuedAt
	if c.NotBefore.After(t) {
		t = c.NotBefore
	}
	return t.Add(-p.verifier.Leeway)
}

// VerifyForRefresh is Verify for a token that may have expired. It is never remembered.
func (p *Policy) VerifyForRefresh(raw string, now time.Time) (*token.Claims, error) {
	claims, err := p.verifier.VerifyForRefresh(raw, now)
	if err != nil {
		return nil, err
	}
	if p.sessions.Revoked(claims.SessionID) {
		return nil, refusal(token.SessionRevoked, "the session was revoked")
	}
	return claims, nil
}

// EndsAt is when a token is of no more use, the leeway included.
func (p *Policy) EndsAt(c *token.Claims) time.Time { return c.ExpiresAt.Add(p.verifier.Leeway) }

// claimHeader is a settings.ClaimHeader with its folded name.
type claimHeader struct{ claim, header, folded string }

// identityHeaders writes claims as header values. A value that would not arrive as
// it is refuses the token: an application that sees no header, or another value,
// would decide about somebody else.
func (p *Policy) identityHeaders(c *token.Claims) ([]Header, error) {
	var headers []Header
	for _, h := range p.claims {
		values, ok := c.Strings(h.claim)
		if !ok {
			continue
		}
		for _, v := range values {
			if !isFieldValue(v) || len(values) > 1 && strings.Contains(v, ",") {
				return nil, refusal(token.ClaimMismatch, "a claim cannot be a header value")
			}
		}
		headers = append(headers, Header{Name: h.header, Value: strings.Join(values, ",")})
	}
	return headers, nil
}

// isFieldValue is RFC 9110 section 5.5, without white space at the ends, which a
// reader would cut off.
func isFieldValue(s string) bool {
	if strings.Trim(s, " \t") != s {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
