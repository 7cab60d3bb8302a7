// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/issuerclient"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

// bodyTimeout bounds how long a login may take to arrive.
const bodyTimeout = 15 * time.Second

// endpoint is one of ours: the methods it allows and what serves it.
type endpoint struct {
	allow string
	serve func(*exchange)
}

var endpoints = map[decide.Endpoint]endpoint{
	decide.EndpointToken:   {"POST", (*exchange).login},
	decide.EndpointRefresh: {"POST", (*exchange).explicitRefresh},
	decide.EndpointLogout:  {"POST", (*exchange).logout},
	decide.EndpointMe:      {"GET, HEAD", (*exchange).me},
	decide.EndpointJWKS:    {"GET, HEAD", (*exchange).jwks},
}

func (x *exchange) serveEndpoint() {
	e, ok := endpoints[x.verdict.Endpoint]
	if !ok {
		x.Metrics.Request(metrics.Denied)
		x.plain(http.StatusNotFound, "There is no such endpoint: use token, refresh, logout, me or jwks.json.")
		return
	}
	if !slices.Contains(strings.Split(e.allow, ", "), x.request.Method) {
		x.Metrics.Request(metrics.Denied)
		x.w.Header().Set("Allow", e.allow)
		x.plain(http.StatusMethodNotAllowed, "This endpoint takes "+e.allow+".")
		return
	}
	e.serve(x)
}

func (x *exchange) countEndpoint() { x.Metrics.Request(metrics.Endpoint) }

// login relays the client's own body to the issuer.
func (x *exchange) login() {
	contentType := x.request.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/json" && media != "application/x-www-form-urlencoded" || x.request.Header.Get("Content-Encoding") != "" {
		x.refuseBody(http.StatusUnsupportedMediaType, "Send application/json or application/x-www-form-urlencoded, without a content coding.")
		return
	}
	body, status, detail := x.readBody()
	if status != 0 {
		x.refuseBody(status, detail)
		return
	}
	response, err := x.Issuer.Login(x.request.Context(), body, contentType, clientAddress(x.request))
	if err != nil {
		x.denyEndpoint(issuerVerdict(x.verdict, err))
		return
	}
	x.countEndpoint()
	x.writeJSON(response)
}

// issuerVerdict keeps request_invalid, which is about the client's body.
func issuerVerdict(v decide.Verdict, err error) decide.Verdict {
	if refusal := refusalOf(err); refusal != nil {
		v.Outcome, v.Err = decide.Deny, err
		return v
	}
	return denied(v, err)
}

// readBody takes a whole body; status 0 means that it did.
func (x *exchange) readBody() (body []byte, status int, detail string) {
	const tooLarge = "The body has more than 65536 bytes."
	if x.request.ContentLength > protocol.MaxLoginBody {
		x.closeAfter()
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	// HTTP/2 has no such deadline on some servers; the issuer's then has to do.
	controller := http.NewResponseController(x.w.ResponseWriter)
	_ = controller.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(x.w.ResponseWriter, x.request.Body, protocol.MaxLoginBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, http.StatusRequestEntityTooLarge, tooLarge
	}
	if err != nil {
		x.closeAfter()
		return nil, http.StatusBadRequest, "The body did not arrive whole."
	}
	// The server goes on reading, to notice when the client goes: the deadline would
	// pass for that while the issuer is at work.
	_ = controller.SetReadDeadline(time.Time{})
	return body, 0, ""
}

// refuseBody is request_invalid with the status that says what is wrong.
func (x *exchange) refuseBody(status int, detail string) {
	v := x.verdict
	v.Err = &token.Error{Reason: token.RequestInvalid, Detail: detail}
	x.count(token.RequestInvalid, v)
	body, _ := json.Marshal(protocol.NewProblem(status, token.RequestInvalid, detail))
	x.writeProblem(status, body)
}

// denyEndpoint carries a denial out whatever the enforcement.
func (x *exchange) denyEndpoint(v decide.Verdict) {
	x.abortIfGone(v)
	x.count(v.Reason(), v)
	x.writeDenial(x.policy.Denial(v.Reason()), refusalOf(v.Err))
}

// presented finds and verifies the caller's token, which may have expired. The error
// is in the verdict that comes with it.
func (x *exchange) presented() (string, decide.Verdict) {
	v := x.verdict
	raw, err := decide.BearerToken(x.request.Header["Authorization"])
	if err != nil {
		v.Err = err
		return "", v
	}
	v.Token = raw
	return raw, x.withKeys(x.forRefresh(v), func() decide.Verdict { return x.forRefresh(v) })
}

func (x *exchange) forRefresh(v decide.Verdict) decide.Verdict {
	claims, err := x.policy.VerifyForRefresh(v.Token, x.Now())
	if err != nil {
		v.Outcome, v.Err = decide.Deny, err
		return v
	}
	v.Outcome, v.Err, v.Identity = decide.Refresh, nil, &decide.Identity{Claims: claims}
	return v
}

// explicitRefresh answers with a new token in the body. Whether an expired token may
// have one is the issuer's decision.
func (x *exchange) explicitRefresh() {
	raw, v := x.presented()
	if v.Err != nil {
		x.denyEndpoint(v)
		return
	}
	response, err := x.Refresher.Refresh(x.request.Context(), x.refreshKey(v.Identity), raw)
	x.countRefresh(metrics.RefreshExplicit, err)
	if err != nil {
		x.denyEndpoint(denied(x.verdict, err))
		return
	}
	x.countEndpoint()
	x.writeJSON(response)
}

// logout ends the session, here at once and elsewhere when the issuer's stream says so.
func (x *exchange) logout() {
	raw, v := x.presented()
	// A session that was ended already is what the caller wants: the answer to the
	// first logout may have been lost.
	if reason, _ := token.ReasonOf(v.Err); reason != token.SessionRevoked {
		if v.Err == nil {
			if err := x.Issuer.Logout(x.request.Context(), raw); err != nil {
				v = denied(v, err)
			}
		}
		if v.Err != nil {
			x.denyEndpoint(v)
			return
		}
		x.Revocations.Add(v.Identity.Claims.SessionID, time.Time{})
	}
	x.countEndpoint()
	header := x.w.Header()
	x.allowOrigin(header, false)
	header.Set("Cache-Control", "no-store")
	x.w.WriteHeader(http.StatusNoContent)
}

// me answers with the verified claims, byte for byte as they were signed. An expired
// token is refreshed as in any other request.
func (x *exchange) me() {
	v := x.verdict
	raw, err := decide.BearerToken(x.request.Header["Authorization"])
	if err != nil {
		v.Err = err
		x.denyEndpoint(v)
		return
	}
	v = x.admit(v, raw)
	if v.Outcome == decide.Refresh {
		v = x.refresh(v, metrics.RefreshExpired)
	}
	if v.Outcome != decide.Forward {
		x.denyEndpoint(v)
		return
	}
	_, rest, _ := strings.Cut(v.Token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		// A verified token has canonical encoding.
		x.denyEndpoint(denied(v, issuerclient.ErrUnavailable))
		return
	}
	x.countEndpoint()
	x.writeJSON(json.RawMessage(claims))
}

// jwks is the key set for others who verify our tokens.
func (x *exchange) jwks() {
	x.countEndpoint()
	header := x.w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Cache-Control", "public, max-age=60")
	header.Set("Content-Type", "application/jwk-set+json")
	body := x.policy.Keys.JWKS()
	header.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = x.w.Write(body)
}

func (x *exchange) writeJSON(value any) {
	body, err := json.Marshal(value)
	if err != nil {
		x.denyEndpoint(denied(x.verdict, issuerclient.ErrUnavailable))
		return
	}
	header := x.w.Header()
	x.allowOrigin(header, false)
	x.returnToken(header)
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = x.w.Write(body) // the client has gone
}
