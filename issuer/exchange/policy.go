// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// Policy is one version of a TokenPolicy with everything that serving it needs. It
// is immutable: a change of spec or keys makes another one, and calls that are under
// way finish on the one they began with.
type Policy struct {
	UID        session.PolicyID
	Namespace  string
	Name       string
	Generation int64

	// Issuer and Audiences are minted, and required of presented tokens.
	Issuer    string
	Audiences []string
	// Claims are the attributes that go into tokens.
	Claims []ClaimMapping
	// Session are the times of design section 4.
	Session session.Policy
	// RefuseExpired is refresh.onExpired Reject.
	RefuseExpired bool
	// DenialStatus is the HTTP status of a failed authentication, 401 or 403.
	DenialStatus int

	Keys     Keys
	Users    users.Source
	Sessions session.Store

	// Attempts counts failed logins for the issuers that share Sessions; nil counts and
	// limits nothing. PerAccount is also the limit of each subject.
	Attempts               attempts.Counter
	PerAccount, PerAddress attempts.Limit
}

// ClaimMapping copies a user attribute into a claim.
type ClaimMapping struct{ Claim, Attribute string }

// Keys of a policy's SigningKey.
type Keys struct {
	// Set verifies.
	Set *token.KeySet
	// Active signs new tokens.
	Active *token.PrivateKey
	// Private halves that still exist, by key id, the active one among them.
	Private map[string]*token.PrivateKey
}

// ClientID is the "client_id" of the policy's tokens (RFC 9068 section 2.2): who the
// token was issued to.
func (p *Policy) ClientID() string { return p.Namespace + "/" + p.Name }

// verify checks a token that is to be exchanged.
func (p *Policy) verify(raw string, now time.Time, expiredIsFine bool) (*token.Claims, error) {
	v := token.Verifier{Keys: p.Keys.Set, Issuer: p.Issuer, Audiences: p.Audiences, Leeway: p.Session.Leeway}
	check := v.Verify
	if expiredIsFine {
		check = v.VerifyForRefresh
	}
	claims, err := check(raw, now)
	if err != nil {
		return nil, refusal.Token(err)
	}
	if claims.ClientID != p.ClientID() {
		// Two policies may share issuer, audience and key; their sessions are apart all the same.
		return nil, refusal.Denied(token.ClaimMismatch, "the token was issued under another TokenPolicy")
	}
	return claims, nil
}

// claimsOf picks what the policy copies out of a user's attributes. Its form is
// stable, so that a replay can be minted byte for byte.
func (p *Policy) claimsOf(user users.User) (json.RawMessage, error) {
	picked := map[string]any{}
	for _, m := range p.Claims {
		if value, ok := user.Attributes[m.Attribute]; ok {
			picked[m.Claim] = value
		}
	}
	raw, err := token.EncodeExtra(picked)
	if err != nil {
		return nil, fmt.Errorf("encode the user's claims: %w", err)
	}
	return raw, nil
}

// mint makes the session's current token. It goes by the session alone, so the same
// session always gives the same token; under PS* the same claims.
func (p *Policy) mint(s session.Session) (string, error) {
	key := p.Keys.Private[s.Current.KeyID]
	if key == nil {
		key = p.Keys.Active // the private half of a retired key is deleted at once
	}
	var extra map[string]any
	var err error
	if len(s.Current.Claims) > 0 {
		extra, err = token.DecodeExtra(s.Current.Claims)
	}
	if err != nil {
		return "", fmt.Errorf("decode the claims of a session: %w", err)
	}
	raw, err := key.Sign(token.Claims{
		Issuer: p.Issuer, Subject: s.Subject, Audience: p.Audiences,
		ExpiresAt: s.Current.ExpiresAt, IssuedAt: s.Current.IssuedAt,
		ID: s.Current.ID, SessionID: string(s.ID), ClientID: p.ClientID(), Generation: s.Generation,
		Extra: extra,
	})
	if err != nil {
		// What the policy and the key give is sound, so it is what the user brings along.
		return "", &refusal.Error{
			Reason: token.IssuerUnavailable, Status: http.StatusInternalServerError,
			Detail: "the user's attributes do not fit into a token: shorten them, or spec.accessToken.claims of the TokenPolicy",
			Err:    fmt.Errorf("sign a token: %w", err),
		}
	}
	return raw, nil
}
