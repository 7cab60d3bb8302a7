// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"

	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/issuerclient"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

// maxRefreshes bounds one request's refreshes: the issuer may hand out the current
// token of the session once more, and that may have expired as well.
const maxRefreshes = 2

// refresh buys a new token for an expired one and says what becomes of the request
// with it. The new token is returned to the client even if the request is denied for
// another reason: the old one is spent.
func (x *exchange) refresh(v decide.Verdict, kind metrics.Refresh) decide.Verdict {
	for range maxRefreshes {
		response, err := x.Refresher.Refresh(x.request.Context(), x.refreshKey(v.Identity), v.Token)
		x.countRefresh(kind, err)
		if err != nil {
			return denied(v, err)
		}
		if v = x.admit(v, response.AccessToken); v.Outcome != decide.Refresh {
			break
		}
	}
	switch v.Reason() {
	case "", token.ClaimMismatch:
		x.newToken = v.Token
	case token.SessionRevoked:
	default:
		// The issuer's own token does not pass here, for example because its key has
		// not arrived. That is an outage, and nothing the client could mend.
		return denied(v, fmt.Errorf("%w: its new token is refused here: %s", issuerclient.ErrUnavailable, v.Reason()))
	}
	return v
}

// refreshEarly tries to replace a token that is about to expire. Whatever goes wrong
// with it, the token is still valid.
func (x *exchange) refreshEarly() {
	v := x.verdict
	if !v.Early {
		return
	}
	response, ok, err := x.Refresher.RefreshEarly(x.request.Context(), x.refreshKey(v.Identity), v.Token)
	if err != nil {
		x.countRefresh(metrics.RefreshEarly, err)
	}
	if !ok {
		return
	}
	renewed := x.admit(v, response.AccessToken)
	if renewed.Outcome != decide.Forward {
		x.countRefresh(metrics.RefreshEarly, issuerclient.ErrUnavailable)
		return
	}
	x.countRefresh(metrics.RefreshEarly, nil)
	x.verdict, x.newToken = renewed, renewed.Token
}

func (x *exchange) refreshKey(id *decide.Identity) issuerclient.Key {
	return issuerclient.Key{
		PolicyUID: x.policy.Settings.Policy.UID, SessionID: id.Claims.SessionID,
		Generation: id.Claims.Generation, TokenID: id.Claims.ID,
	}
}

// admit judges a token for a request, and fetches keys for it if need be.
func (x *exchange) admit(v decide.Verdict, raw string) decide.Verdict {
	return x.withKeys(x.policy.Admit(v, raw, x.Now()), func() decide.Verdict { return x.policy.Admit(v, raw, x.Now()) })
}

// withKeys looks for the key of a token that was denied for it, and has the verdict
// taken again under the policy that knows the key.
func (x *exchange) withKeys(v decide.Verdict, again func() decide.Verdict) decide.Verdict {
	if v.Outcome != decide.Deny || v.Reason() != token.KeyUnknown {
		return v
	}
	kid, ok := token.KeyID(v.Token)
	if !ok {
		return v
	}
	found, err := x.Keys.Find(x.request.Context(), kid)
	if err != nil {
		return denied(v, err)
	}
	if !found {
		return v
	}
	x.policy = x.Policies.Current()
	return again()
}

func (x *exchange) countRefresh(kind metrics.Refresh, err error) {
	result := metrics.OK
	if err != nil {
		if x.request.Context().Err() != nil {
			return // the client has gone, which says nothing about the refresh
		}
		result = metrics.Unavailable
		if _, ok := errors.AsType[*issuerclient.Refusal](err); ok {
			result = metrics.Refused
		}
	}
	x.Metrics.Refresh(kind, result)
}

// denied turns an error of the issuer's into a verdict. Whatever is no answer about
// the token is an outage, never a logout.
func denied(v decide.Verdict, err error) decide.Verdict {
	v.Outcome, v.Identity, v.Early = decide.Deny, nil, false
	v.Err = err
	refusal, ok := errors.AsType[*issuerclient.Refusal](err)
	if !ok || refusal.Reason == token.RequestInvalid {
		v.Err = fmt.Errorf("%w: %s", &token.Error{Reason: token.IssuerUnavailable, Detail: "no verdict"}, err.Error())
	}
	return v
}
