// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"slices"
	"time"
)

// Verifier checks tokens against one policy. It has no state of its own; a Verifier
// that is in use must not be changed.
type Verifier struct {
	// Keys are what a signature may come from; nil knows none.
	Keys *KeySet
	// Issuer is what "iss" must be, byte for byte.
	Issuer string
	// Audiences are those of which "aud" must hold at least one.
	Audiences []string
	// Leeway is the clock difference that is allowed in every time check.
	Leeway time.Duration
}

// Verify says whether a token may be used at now, and what it claims. The error is
// always an [*Error]. TokenExpired means that nothing else is wrong with the token.
func (v *Verifier) Verify(raw string, now time.Time) (*Claims, error) {
	claims, err := v.VerifyForRefresh(raw, now)
	if err != nil {
		return nil, err
	}
	if v.Expired(claims, now) {
		return nil, refuse(TokenExpired, "exp has passed")
	}
	return claims, nil
}

// VerifyForRefresh is [Verifier.Verify] for a token that may have expired, however
// long ago: a profile of its own beside RFC 7519 section 4.1.4, only for deciding whether
// such a token buys a new one. [Verifier.Expired] says whether it has.
func (v *Verifier) VerifyForRefresh(raw string, now time.Time) (*Claims, error) {
	c, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if err := v.authenticate(c); err != nil {
		return nil, err
	}
	if c.header.typ != "at+jwt" && c.header.typ != "application/at+jwt" {
		return nil, refuse(TokenMalformed, "the header's typ is not at+jwt")
	}
	claims, has, err := decodeClaims(string(c.payload))
	if err != nil {
		return nil, err
	}
	if err := complete(claims, has); err != nil {
		return nil, err
	}
	if err := v.judge(claims, now); err != nil {
		return nil, err
	}
	return claims, nil
}

// Expired says whether claims that this verifier accepted have expired at now. A token
// that was verified once and is remembered needs this at every use.
func (v *Verifier) Expired(claims *Claims, now time.Time) bool {
	return !now.Before(claims.ExpiresAt.Add(v.Leeway))
}

// authenticate finds the key and checks the signature. The algorithm is the key's; the
// header's may only agree with it (RFC 8725 section 3.1).
func (v *Verifier) authenticate(c compact) error {
	if !c.header.algorithm.Valid() {
		return refuse(AlgorithmNotAllowed, "the header's alg is not one that is ever used")
	}
	key, ok := v.Keys.Lookup(c.header.keyID)
	if !ok {
		return refuse(KeyUnknown, "the header's kid names no key of the key set")
	}
	if key.Algorithm != c.header.algorithm {
		return refuse(AlgorithmNotAllowed, "the header's alg is not that of the key")
	}
	if !key.Algorithm.verifySignature(c.signingString, c.signature, key.Key) {
		return refuse(SignatureInvalid, "the signature does not match")
	}
	return nil
}

// complete wants every claim that a token of ours has (RFC 9068 section 2.2 and the
// session's). An empty string is as good as none.
func complete(c *Claims, has found) error {
	missing := ""
	switch {
	case c.Issuer == "":
		missing = "iss"
	case c.Subject == "":
		missing = "sub"
	case len(c.Audience) == 0:
		missing = "aud"
	case !has.exp:
		missing = "exp"
	case !has.iat:
		missing = "iat"
	case c.ID == "":
		missing = "jti"
	case c.SessionID == "":
		missing = "sid"
	case !has.gen:
		missing = "gen"
	case c.ClientID == "":
		missing = "client_id"
	default:
		return nil
	}
	return refuse(ClaimMissing, missing+" is missing or empty")
}

// judge looks at the values of the claims, apart from expiry.
func (v *Verifier) judge(c *Claims, now time.Time) error {
	if c.Issuer != v.Issuer {
		return refuse(IssuerNotTrusted, "iss is not the policy's issuer")
	}
	if !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(v.Audiences, a) }) {
		return refuse(AudienceMismatch, "aud has none of the policy's audiences")
	}
	latest := now.Add(v.Leeway)
	if c.NotBefore.After(latest) {
		return refuse(TokenNotYetValid, "nbf has not come yet")
	}
	if c.IssuedAt.After(latest) {
		return refuse(TokenNotYetValid, "iat has not come yet")
	}
	return nil
}
