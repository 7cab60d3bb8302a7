// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/api"
	"github.com/tokenward/tokenward/issuer/caller"
	"github.com/tokenward/tokenward/issuer/exchange"
)

// issuerMetrics observe every part. All labels are of closed sets, but for the names
// of policies in storeMetrics.
type issuerMetrics struct {
	calls       *prometheus.CounterVec
	callTime    *prometheus.HistogramVec
	streams     prometheus.Gauge
	callers     *prometheus.CounterVec
	storeFailed *prometheus.CounterVec
	limited     *prometheus.CounterVec
	hashTime    prometheus.Histogram
	hashWaiting prometheus.Gauge
	hashRefused prometheus.Counter
	stores      *storeMetrics
}

func newMetrics(registry prometheus.Registerer) (*issuerMetrics, error) {
	m := &issuerMetrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tokenward_issuer_calls_total",
			Help: "Calls by sidecars. The outcome is new, rotated, replayed, joined or done, a reason of the closed set, or fault.",
		}, []string{"call", "outcome"}),
		callTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tokenward_issuer_call_duration_seconds",
			Help:    "Time from the head of a call to the end of its answer. Streams are left out.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}, []string{"call"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tokenward_issuer_revocation_streams",
			Help: "Revocation streams that are open.",
		}),
		callers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tokenward_issuer_callers_total",
			Help: "How callers were told: remembered, accepted or refused by the API server, or unavailable because it did not answer.",
		}, []string{"outcome"}),
		storeFailed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tokenward_issuer_store_failures_total",
			Help: "Operations that a session store could not do.",
		}, []string{"operation"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tokenward_issuer_logins_limited_total",
			Help: "Logins that were refused because too many had failed: of the account, of the client's address, or of the subject under several names.",
		}, []string{"allowance"}),
		hashTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tokenward_issuer_password_hash_duration_seconds",
			Help:    "Time to compute one password hash, without waiting.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 10),
		}),
		hashWaiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tokenward_issuer_password_hashes_waiting",
			Help: "Logins that wait for their password to be hashed.",
		}),
		hashRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tokenward_issuer_password_hashes_refused_total",
			Help: "Logins that were refused because too many were waiting.",
		}),
		stores: newStoreMetrics(),
	}
	for _, c := range []prometheus.Collector{m.stores, m.calls, m.callTime, m.streams, m.callers, m.storeFailed, m.limited, m.hashTime, m.hashWaiting, m.hashRefused} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	m.begin()
	return m, nil
}

// begin makes every series exist before it counts, so that a rate over the first
// event is one.
func (m *issuerMetrics) begin() {
	outcomes := append(api.Outcomes(), api.OutcomeFault)
	for _, reason := range token.Reasons() {
		outcomes = append(outcomes, string(reason))
	}
	for _, call := range []protocol.Call{protocol.CallLogin, protocol.CallRefresh, protocol.CallLogout, protocol.CallKeys, protocol.CallRevocations} {
		for _, outcome := range outcomes {
			m.calls.WithLabelValues(string(call), outcome)
		}
	}
	for _, outcome := range caller.Outcomes() {
		m.callers.WithLabelValues(string(outcome))
	}
	for _, operation := range exchange.Operations() {
		m.storeFailed.WithLabelValues(string(operation))
	}
	for _, allowance := range exchange.Allowances() {
		m.limited.WithLabelValues(string(allowance))
	}
}

// CallDone implements [api.Observer].
func (m *issuerMetrics) CallDone(call protocol.Call, outcome string, took time.Duration) {
	m.calls.WithLabelValues(string(call), outcome).Inc()
	if call != protocol.CallRevocations {
		m.callTime.WithLabelValues(string(call)).Observe(took.Seconds())
	}
}

// Streams implements [api.Observer].
func (m *issuerMetrics) Streams(delta int) { m.streams.Add(float64(delta)) }

// CallerDone is for [caller.New].
func (m *issuerMetrics) CallerDone(outcome caller.Outcome) {
	m.callers.WithLabelValues(string(outcome)).Inc()
}

// StoreFailed implements [exchange.Observer].
func (m *issuerMetrics) StoreFailed(operation exchange.Operation) {
	m.storeFailed.WithLabelValues(string(operation)).Inc()
}

// LoginLimited implements [exchange.Observer].
func (m *issuerMetrics) LoginLimited(allowance exchange.Allowance) {
	m.limited.WithLabelValues(string(allowance)).Inc()
}

// HashWaiting implements password.Observer.
func (m *issuerMetrics) HashWaiting(delta int) { m.hashWaiting.Add(float64(delta)) }

// HashDone implements password.Observer.
func (m *issuerMetrics) HashDone(took time.Duration) { m.hashTime.Observe(took.Seconds()) }

// HashRefused implements password.Observer.
func (m *issuerMetrics) HashRefused() { m.hashRefused.Inc() }
