// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics counts what the sidecar does, and writes it in the Prometheus text
// format. It is small on purpose: a client library would take a good part of the
// memory that a sidecar may have. All labels come from closed sets, and all series
// exist from the start. It owns no HTTP endpoint; package admin serves it.
package metrics

import (
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// Outcome is what became of a request.
type Outcome string

// The outcomes.
const (
	// Authenticated requests were forwarded with an identity.
	Authenticated Outcome = "authenticated"
	// Anonymous requests were forwarded without one, as a rule or a preflight allows.
	Anonymous Outcome = "anonymous"
	// Denied requests were answered here; tokenward_sidecar_denials_total says why.
	Denied Outcome = "denied"
	// Audited requests would have been denied, and were forwarded under enforcement: Audit.
	Audited Outcome = "audited"
	// Endpoint requests were for the sidecar's own endpoints and were granted.
	Endpoint Outcome = "endpoint"
	// Unready requests came before there were settings.
	Unready Outcome = "unready"
)

// Result is how a call or a reload ended.
type Result string

// The results.
const (
	OK          Result = "ok"
	Refused     Result = "refused"
	Unavailable Result = "unavailable"
)

// Refresh is what a refresh was for.
type Refresh string

// The kinds of refresh.
const (
	RefreshExpired  Refresh = "expired"
	RefreshEarly    Refresh = "early"
	RefreshExplicit Refresh = "explicit"
)

// Metrics are the sidecar's counters. Its methods are safe for concurrent use.
type Metrics struct {
	registry registry

	requests  map[Outcome]*counter
	denials   map[token.Reason]*counter
	audited   map[token.Reason]*counter
	refreshes map[Refresh]map[Result]*counter
	calls     map[string]map[Result]*counter
	duration  map[string]*histogram
	reloads   map[Result]*counter
	upstream  *counter
	cut       *counter
	logged    *counter
}

// Calls are the names of calls to the issuer, as labels.
var callNames = []string{"token", "refresh", "logout", "keys", "revocations"}

// New makes all series.
func New() *Metrics {
	m := &Metrics{
		requests: map[Outcome]*counter{}, denials: map[token.Reason]*counter{}, audited: map[token.Reason]*counter{},
		refreshes: map[Refresh]map[Result]*counter{}, calls: map[string]map[Result]*counter{}, duration: map[string]*histogram{},
		reloads: map[Result]*counter{},
	}
	r := &m.registry
	f := r.family("tokenward_sidecar_requests_total", "Requests by what became of them.", "counter")
	for _, o := range []Outcome{Authenticated, Anonymous, Denied, Audited, Endpoint, Unready} {
		m.requests[o] = f.counter("outcome", string(o))
	}
	denials := r.family("tokenward_sidecar_denials_total", "Requests that were denied, by reason.", "counter")
	audited := r.family("tokenward_sidecar_audited_denials_total", "Requests that would have been denied and were let through under enforcement Audit, by reason.", "counter")
	for _, reason := range token.Reasons() {
		m.denials[reason] = denials.counter("reason", string(reason))
		m.audited[reason] = audited.counter("reason", string(reason))
	}
	f = r.family("tokenward_sidecar_refreshes_total", "Refreshes of access tokens for requests, by what made them necessary and how they ended.", "counter")
	for _, kind := range []Refresh{RefreshExpired, RefreshEarly, RefreshExplicit} {
		m.refreshes[kind] = map[Result]*counter{}
		for _, result := range []Result{OK, Refused, Unavailable} {
			m.refreshes[kind][result] = f.counter("kind", string(kind), "result", string(result))
		}
	}
	f = r.family("tokenward_sidecar_issuer_calls_total", "Calls to the issuer; requests that shared one call count once.", "counter")
	h := r.family("tokenward_sidecar_issuer_call_duration_seconds", "How long the issuer took to answer.", "histogram")
	for _, call := range callNames {
		m.calls[call] = map[Result]*counter{}
		for _, result := range []Result{OK, Refused, Unavailable} {
			m.calls[call][result] = f.counter("call", call, "result", string(result))
		}
		if call != "revocations" {
			m.duration[call] = h.histogram("call", call)
		}
	}
	f = r.family("tokenward_sidecar_settings_reloads_total", "Times that the settings file was read after a change.", "counter")
	for _, result := range []Result{OK, Refused} {
		m.reloads[result] = f.counter("result", string(result))
	}
	m.upstream = r.family("tokenward_sidecar_upstream_errors_total", "Requests that the application did not answer.", "counter").counter()
	m.cut = r.family("tokenward_sidecar_streams_ended_total", "Streams that were ended because their session was, or their token under onExpired Reject.", "counter").counter()
	m.logged = r.family("tokenward_sidecar_log_lines_suppressed_total", "Denials that were counted and not logged, because there were too many.", "counter").counter()
	return m
}

// Request counts a request.
func (m *Metrics) Request(o Outcome) { m.requests[o].add(1) }

// Denial counts why a request was denied, or would have been.
func (m *Metrics) Denial(reason token.Reason, audited bool) {
	counters := m.denials
	if audited {
		counters = m.audited
	}
	if c, ok := counters[reason]; ok {
		c.add(1)
	}
}

// Refresh counts a refresh on behalf of one request.
func (m *Metrics) Refresh(kind Refresh, result Result) { m.refreshes[kind][result].add(1) }

// IssuerCall counts a call and, with a duration above zero, times it.
func (m *Metrics) IssuerCall(call string, result Result, took time.Duration) {
	m.calls[call][result].add(1)
	if h := m.duration[call]; h != nil && took > 0 {
		h.observe(took.Seconds())
	}
}

// Reload counts a changed settings file.
func (m *Metrics) Reload(result Result) { m.reloads[result].add(1) }

// UpstreamError counts a request that the application did not answer.
func (m *Metrics) UpstreamError() { m.upstream.add(1) }

// StreamEnded counts a stream that was cut.
func (m *Metrics) StreamEnded() { m.cut.add(1) }

// LogSuppressed counts a line that was not written.
func (m *Metrics) LogSuppressed() { m.logged.add(1) }

// Gauge adds a value that is read when metrics are written.
func (m *Metrics) Gauge(name, help string, read func() float64) {
	m.registry.family(name, help, "gauge").gauge(read)
}
