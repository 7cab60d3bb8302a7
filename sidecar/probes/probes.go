// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package probes runs the application's probes for the kubelet, under Redirect capture:
// the kubelet cannot reach the application's port, so it asks the admin port, and the
// very probe that the pod declares is made against the application on loopback.
//
// Everybody in the pod network can ask the admin port. So nothing of the asking request
// reaches the application, an answer tells no more than a status code, and however many
// ask, one probe of a kind runs at a time and all of them get its result.
package probes

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/tokenward/tokenward/internal/flight"
	"github.com/tokenward/tokenward/internal/probe"
)

// answerTime is what writing the answer may take beyond the probe's own timeout.
const answerTime = 5 * time.Second

// Handler serves the probes under [probe.PathPrefix].
type Handler struct {
	probes   map[string]probe.Probe
	upstream string
	runs     flight.Group[string, result]
}

// New is for the probes of a pod whose application is at upstream, a host and port.
func New(probes map[string]probe.Probe, upstream string) *Handler {
	return &Handler{probes: probes, upstream: upstream}
}

// result is what came of a probe.
type result struct {
	// status is what the kubelet is told. It takes 200 to 399 for success.
	status int
	text   string
}

func passed() result { return result{http.StatusOK, "ok"} }

func failed(format string, arguments ...any) result {
	return result{http.StatusServiceUnavailable, fmt.Sprintf(format, arguments...)}
}

// ServeHTTP runs the probe whose name is the rest of the path.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[min(len(probe.PathPrefix), len(r.URL.Path)):]
	declared, ok := h.probes[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	timeout := time.Duration(declared.TimeoutSeconds) * time.Second
	// The admin port's own limits may be shorter than the probe's.
	control, deadline := http.NewResponseController(w), time.Now().Add(timeout+answerTime)
	_ = control.SetReadDeadline(deadline)  // of a recorder in tests: there is none
	_ = control.SetWriteDeadline(deadline) // the same

	// Its own context is that of the server: who asks may go, others may wait.
	got, _, err := h.runs.Do(r.Context(), name, timeout, func(ctx context.Context) (result, error) {
		return h.run(ctx, declared, h.host(r)), nil
	})
	if err != nil {
		got = failed("the probe was not finished")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(got.status)
	_, _ = fmt.Fprintln(w, got.text)
}

// host is where the kubelet would have sent the probe: the address of the pod that it
// asked, and the application's port. Applications see it in the header Host.
func (h *Handler) host(r *http.Request) string {
	_, port, err := net.SplitHostPort(h.upstream)
	if err != nil {
		return h.upstream // the flag was checked
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return net.JoinHostPort(local.IP.String(), port)
	}
	return h.upstream
}

func (h *Handler) run(ctx context.Context, declared probe.Probe, host string) result {
	switch {
	case declared.HTTP != nil:
		return h.get(ctx, *declared.HTTP, host)
	case declared.GRPC != nil:
		return h.check(ctx, *declared.GRPC)
	default:
		return h.connect(ctx)
	}
}

// dial reaches the application, or another port of the pod that the application itself
// sends the probe on to.
func (h *Handler) dial(ctx context.Context, port string) (net.Conn, error) {
	loopback, _, err := net.SplitHostPort(h.upstream)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(loopback, port))
}

func (h *Handler) connect(ctx context.Context) result {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.upstream)
	if err != nil {
		return failed("no connection to the application: %v", err)
	}
	_ = conn.Close() // it was there
	return passed()
}
