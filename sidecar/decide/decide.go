// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"slices"
	"time"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// Outcome is what a front end has to do.
type Outcome uint8

// The outcomes.
const (
	// Deny with Verdict.Err.
	Deny Outcome = iota
	// Forward to the application, with Identity unless it is nil.
	Forward
	// Refresh: the token has expired and nothing else is wrong. A new one may be
	// bought, and goes to Policy.Admit.
	Refresh
	// Serve one of our own endpoints.
	Serve
	// Preflight of one of our own endpoints, to be answered.
	Preflight
)

// Endpoint is one of our own, below the policy's prefix (design section 9).
type Endpoint string

// The endpoints.
const (
	EndpointToken   Endpoint = "token"
	EndpointRefresh Endpoint = "refresh"
	EndpointLogout  Endpoint = "logout"
	EndpointMe      Endpoint = "me"
	EndpointJWKS    Endpoint = "jwks.json"
	// EndpointUnknown is any other path below the prefix.
	EndpointUnknown Endpoint = ""
)

// Verdict is a decision.
type Verdict struct {
	Outcome Outcome
	// Path is the canonical path, to be matched and forwarded; empty when there is none.
	Path string
	// Query is what follows the first question mark, as received.
	Query    string
	HasQuery bool
	// Rule is the index of the rule that matched, -1 for none.
	Rule int
	// Endpoint is set with Serve and Preflight.
	Endpoint Endpoint

	// Token is the token that was presented, without its scheme.
	Token string
	// Identity is the verified caller; nil for Anonymous and Deny. With Refresh it
	// is what the expired token says, good for asking the issuer and nothing else.
	Identity *Identity
	// Early says that the token, still valid, is close enough to its expiry to be refreshed.
	Early bool
	// Err is why the request is denied: its reason is [token.ReasonOf].
	Err error

	require []settings.RequiredClaim
}

// Reason is the reason of a denial, empty without one.
func (v *Verdict) Reason() token.Reason {
	reason, _ := token.ReasonOf(v.Err)
	return reason
}

func (v Verdict) deny(err error) Verdict {
	v.Outcome, v.Err, v.Identity, v.Early = Deny, err, nil, false
	return v
}

func refusal(reason token.Reason, detail string) error {
	return &token.Error{Reason: reason, Detail: detail}
}

// Decide says what happens to a request at now.
func (p *Policy) Decide(req Request, now time.Time) Verdict {
	v := Verdict{Rule: -1}
	if err := checkAuthorization(req.Authorization); err != nil {
		return v.deny(err)
	}
	path, query, hasQuery, ok := splitTarget(req.Target)
	if !ok {
		return v.deny(refusal(token.PathAmbiguous, "the request target has no path of its own"))
	}
	canonical, err := settings.CanonicalPath(path)
	if err != nil {
		return v.deny(refusal(token.PathAmbiguous, err.Error()))
	}
	v.Path, v.Query, v.HasQuery = canonical, query, hasQuery
	if prefix := p.Settings.Endpoints.Prefix; under(canonical, prefix) {
		v.Outcome, v.Endpoint = Serve, endpoint(canonical[len(prefix):])
		if req.preflight() {
			v.Outcome = Preflight
		}
		return v
	}
	matched, index := p.rule(req.Method, canonical)
	v.Rule, v.require = index, matched.require
	switch {
	case matched.access == settings.AccessDenied:
		return v.deny(refusal(token.RuleDenied, "a rule denies this path to everybody"))
	case matched.access == settings.AccessAnonymous || req.preflight():
		v.Outcome = Forward
		return v
	}
	raw, err := BearerToken(req.Authorization)
	if err != nil {
		return v.deny(err)
	}
	return p.Admit(v, raw, now)
}

// Admit judges a token against what is already known of its request: the one it
// brought, or a new one that it has bought.
func (p *Policy) Admit(v Verdict, raw string, now time.Time) Verdict {
	v.Token = raw
	id, err := p.Verify(raw, now)
	if reason, _ := token.ReasonOf(err); reason == token.TokenExpired && p.Refreshes() {
		claims, refreshErr := p.VerifyForRefresh(raw, now)
		if refreshErr != nil {
			return v.deny(refreshErr)
		}
		v.Outcome, v.Identity, v.Err = Refresh, &Identity{Claims: claims}, err
		return v
	}
	if err != nil {
		return v.deny(err)
	}
	if err := p.meets(id.Claims, v.require); err != nil {
		return v.deny(err)
	}
	v.Outcome, v.Identity, v.Err = Forward, id, nil
	v.Early = p.early(id.Claims, now)
	return v
}

// early says that a token is within refresh.early of its expiry.
func (p *Policy) early(c *token.Claims, now time.Time) bool {
	early := time.Duration(p.Settings.Refresh.Early)
	return early > 0 && p.Refreshes() && c.ExpiresAt.Sub(now) <= early
}

// meets checks what the matched rule asks of the claims.
func (p *Policy) meets(c *token.Claims, require []settings.RequiredClaim) error {
	for i := range require {
		if !hasOneOf(c, &require[i]) {
			return refusal(token.ClaimMismatch, "a rule asks for a claim that the token does not have")
		}
	}
	return nil
}

func hasOneOf(c *token.Claims, r *settings.RequiredClaim) bool {
	values, ok := c.Strings(r.Claim)
	if !ok {
		return false
	}
	for _, value := range values {
		if slices.Contains(r.Values, value) {
			return true
		}
	}
	return false
}

// endpoint names what follows the prefix.
func endpoint(rest string) Endpoint {
	switch e := Endpoint(rest); e {
	case "/" + EndpointToken, "/" + EndpointRefresh, "/" + EndpointLogout, "/" + EndpointMe, "/" + EndpointJWKS:
		return e[1:]
	default:
		return EndpointUnknown
	}
}
