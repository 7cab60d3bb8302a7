// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/caller"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// callTimeout bounds every call but the stream, from the gates to the last byte.
const callTimeout = 20 * time.Second

// Callers tells who calls. Errors wrap [caller.ErrRefused], or mean that nobody can tell.
type Callers interface {
	Authenticate(ctx context.Context, authorization string) (caller.Pod, error)
}

// Policies finds the policy in force. Errors are *refusal.Error.
type Policies interface {
	Policy(namespace, name string) (*exchange.Policy, error)
}

// Exchange does the work.
type Exchange interface {
	// Login: from is the client's address, the zero value when the sidecar did not say.
	Login(ctx context.Context, p *exchange.Policy, fields map[string]string, from netip.Addr) (exchange.Token, error)
	// Refresh: sentAt is zero when the sidecar did not say.
	Refresh(ctx context.Context, p *exchange.Policy, raw string, sentAt time.Time) (exchange.Token, error)
	Logout(ctx context.Context, p *exchange.Policy, raw string) error
}

// Observer is told of each call.
type Observer interface {
	// CallDone: outcome is a reason of the closed set, one of [Outcomes], or "fault".
	CallDone(call protocol.Call, outcome string, took time.Duration)
	// Streams is called with +1 and -1 as revocation streams begin and end.
	Streams(delta int)
}

// Options of the handler; all are required.
type Options struct {
	Callers  Callers
	Policies Policies
	Exchange Exchange
	Observer Observer
	Log      logr.Logger
	Now      func() time.Time
	// Closing is closed when streams shall end because the server does.
	Closing <-chan struct{}
}

type handler struct {
	Options
	calls callLog
}

// NewHandler serves every endpoint of internal/protocol.
func NewHandler(options Options) http.Handler {
	h := &handler{Options: options, calls: callLog{log: options.Log, now: options.Now}}
	mux := http.NewServeMux()
	for _, e := range []endpoint{
		{call: protocol.CallLogin, method: http.MethodPost, serve: h.login},
		{call: protocol.CallRefresh, method: http.MethodPost, serve: h.refresh},
		{call: protocol.CallLogout, method: http.MethodPost, serve: h.logout},
		{call: protocol.CallKeys, method: http.MethodGet, serve: h.keys},
		{call: protocol.CallRevocations, method: http.MethodGet, serve: h.revocations, endless: true},
	} {
		mux.Handle(protocol.PathPattern(e.call), h.handle(e))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, refusal.Invalid(http.StatusNotFound, "there is no such endpoint"), 0)
	})
	return mux
}

// endpoint is one call. serve answers, or returns an error and has written nothing.
type endpoint struct {
	call    protocol.Call
	method  string
	endless bool
	serve   func(http.ResponseWriter, *http.Request, *scope) (outcome string, err error)
}

// scope is what the gates have found out about a call.
type scope struct {
	pod    caller.Pod
	policy *exchange.Policy
	// subject and session are for the log, when they are known.
	subject, session string
}

// Outcomes of calls that were granted; the others end with a reason.
func Outcomes() []string {
	return []string{string(exchange.New), string(exchange.Rotated), string(exchange.Replayed), string(exchange.Joined), outcomeDone}
}

const (
	outcomeDone = "done"
	// OutcomeFault is a call that failed through a fault of ours (status 500).
	OutcomeFault = "fault"
)

func (h *handler) handle(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := h.Now()
		w = newDated(w, h.Now)
		if !e.endless {
			ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
			defer cancel()
			r = r.WithContext(ctx)
			// The connection has no write timeout, because streams share its server.
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(callTimeout + 5*time.Second))
		}
		s := &scope{}
		outcome, err := h.pass(w, r, e, s)
		if err != nil {
			err = withoutIdentity(err)
			outcome = h.refuse(w, r, err, s)
		}
		h.Observer.CallDone(e.call, outcome, h.Now().Sub(began))
		h.calls.write(e.call, r, s, outcome, err)
	})
}

// pass leads a call through the gates.
func (h *handler) pass(w http.ResponseWriter, r *http.Request, e endpoint, s *scope) (outcome string, err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			// The value itself may hold what must not be logged.
			err = fmt.Errorf("panic of type %T\n%s", p, debug.Stack())
		}
	}()
	if r.Method != e.method {
		w.Header().Set("Allow", e.method)
		return "", refusal.Invalid(http.StatusMethodNotAllowed, "the method must be %s", e.method)
	}
	if err := h.admit(r, s); err != nil {
		return "", err
	}
	return e.serve(w, r, s)
}

// admit finds the caller and the policy.
func (h *handler) admit(r *http.Request, s *scope) error {
	pod, err := h.Callers.Authenticate(r.Context(), r.Header.Get("Authorization"))
	switch {
	case errors.Is(err, caller.ErrRefused):
		// To the client behind the sidecar this is an outage and no verdict on its
		// token, hence the reason; see the package comment of internal/protocol.
		return &refusal.Error{Reason: token.IssuerUnavailable, Status: http.StatusUnauthorized, Detail: err.Error()}
	case err != nil:
		return refusal.Unavailable("the API server does not say who is calling", err)
	}
	s.pod = pod
	if namespace := r.PathValue("namespace"); namespace != pod.Namespace {
		return &refusal.Error{
			Reason: token.IssuerUnavailable, Status: http.StatusForbidden,
			Detail: "a pod may use the TokenPolicies of its own namespace only",
		}
	}
	s.policy, err = h.Policies.Policy(pod.Namespace, r.PathValue("policy"))
	return err
}
