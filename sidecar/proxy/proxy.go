// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/framing"
	"github.com/tokenward/tokenward/sidecar/issuerclient"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

// Policies gives the policy in force, nil before there is one.
type Policies interface {
	Current() *decide.Policy
}

// Issuer answers for users. Errors are an *[issuerclient.Refusal] or wrap
// [issuerclient.ErrUnavailable].
type Issuer interface {
	Login(ctx context.Context, body []byte, contentType, clientAddress string) (protocol.TokenResponse, error)
	Logout(ctx context.Context, raw string) error
}

// Refresher buys new tokens.
type Refresher interface {
	Refresh(ctx context.Context, key issuerclient.Key, raw string) (protocol.TokenResponse, error)
	RefreshEarly(ctx context.Context, key issuerclient.Key, raw string) (protocol.TokenResponse, bool, error)
}

// KeyFinder looks for a key that is not known here.
type KeyFinder interface {
	Find(ctx context.Context, kid string) (bool, error)
}

// Revocations are the sessions that were ended.
type Revocations interface {
	Revoked(sessionID string) bool
	Add(sessionID string, forgetAfter time.Time)
}

// Options of a Proxy; all are required.
type Options struct {
	Policies    Policies
	Issuer      Issuer
	Refresher   Refresher
	Keys        KeyFinder
	Revocations Revocations
	Streams     *Streams
	Metrics     *metrics.Metrics
	Log         *slog.Logger
	Now         func() time.Time
	// Upstream is the application's address, host:port.
	Upstream string
	// Leaving says that the pod ends: clients shall use another connection next time.
	Leaving func() bool
}

// Proxy is the handler in front of the application.
type Proxy struct {
	Options
	http1, http2 *forwarder
	denials      *denialLog
}

// New makes a Proxy.
func New(options Options) *Proxy {
	p := &Proxy{Options: options, denials: newDenialLog(options.Log, options.Metrics, options.Now)}
	p.http1, p.http2 = newForwarder(http1Transport(options.Upstream)), newForwarder(http2Transport(options.Upstream))
	return p
}

type connKey struct{}

// ConnContext is for [http.Server]: it lets the handler ask the connection about framing.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if checked, ok := c.(*framing.Conn); ok {
		return context.WithValue(ctx, connKey{}, checked)
	}
	return ctx
}

// ServeHTTP takes a request along the path of design section 8.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{Proxy: p, request: r, policy: p.Policies.Current()}
	x.conn, _ = r.Context().Value(connKey{}).(*framing.Conn)
	x.w = &responseWriter{ResponseWriter: w, exchange: x}
	defer func() { x.afterPanic(recover()) }()
	x.serve() //nolint:contextcheck // an exchange carries its request, and the request its context
	x.w.drainStream()
}

// exchange is one request and its answer.
type exchange struct {
	*Proxy
	w       *responseWriter
	request *http.Request
	policy  *decide.Policy
	conn    *framing.Conn // nil when the listener does not check framing
	upgrade bool

	verdict decide.Verdict
	// newToken is to be returned to the client; empty without a refresh.
	newToken string
	// raw says that the path is forwarded as it came (Audit).
	raw bool
	// forwarded says that the request went to the application.
	forwarded bool
	// body is the client's, once it is forwarded; nil without one.
	body *body
	// stop ends the exchange, once it is forwarded.
	stop   context.CancelCauseFunc
	stream *stream
}

func (x *exchange) serve() {
	if err := x.checkFraming(); err != nil {
		x.refuseFraming(err)
		return
	}
	if x.policy == nil {
		x.Metrics.Request(metrics.Unready)
		x.plain(http.StatusServiceUnavailable, "There are no settings yet.")
		return
	}
	if detail := x.checkHeaders(); detail != "" {
		x.refuseHeaders(detail)
		return
	}
	x.act(x.decide())
}

// act does what a verdict says.
func (x *exchange) act(v decide.Verdict) {
	x.verdict = v
	switch v.Outcome {
	case decide.Forward:
		x.refreshEarly()
		x.forward()
	case decide.Refresh:
		x.act(x.refresh(v, metrics.RefreshExpired))
	case decide.Serve:
		x.serveEndpoint()
	case decide.Preflight:
		x.answerPreflight()
	case decide.Deny:
		x.abortIfGone(v)
		x.deny(v)
	}
}

// decide asks for a verdict, and once more when keys had to be fetched for it.
func (x *exchange) decide() decide.Verdict {
	r := x.request
	req := decide.Request{
		Method: r.Method, Target: r.RequestURI, Authorization: r.Header["Authorization"],
		Origin: len(r.Header["Origin"]) > 0, RequestMethod: len(r.Header["Access-Control-Request-Method"]) > 0,
	}
	v := x.policy.Decide(req, x.Now())
	return x.withKeys(v, func() decide.Verdict { return x.policy.Decide(req, x.Now()) })
}

// abortIfGone ends an exchange whose client went away while the issuer was asked. There
// is nobody to answer, and the issuer is not to blame.
func (x *exchange) abortIfGone(v decide.Verdict) {
	if x.request.Context().Err() != nil && v.Reason() == token.IssuerUnavailable {
		panic(http.ErrAbortHandler)
	}
}

// afterPanic keeps what a panic says out of the log: it might hold a token.
func (x *exchange) afterPanic(p any) {
	switch {
	case p == nil:
	case isAbort(p):
		panic(http.ErrAbortHandler)
	default:
		x.Log.Error("a request failed through a fault of ours", "stack", string(debug.Stack()))
		panic(http.ErrAbortHandler)
	}
}

func isAbort(p any) bool {
	err, ok := p.(error)
	return ok && errors.Is(err, http.ErrAbortHandler)
}
