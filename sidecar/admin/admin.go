// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package admin serves the sidecar's own port: /healthz for the kubelet's liveness
// probe, /readyz with a reason, /metrics, under Redirect capture the application's
// probes, which package probes runs, and for callers inside the pod the word that the
// pod ends. It decides nothing.
//
// A lost issuer does not make a pod unready: valid tokens still pass, and taking all
// pods of a workload out of service would turn a small outage into a large one. The
// readiness detail says so instead. Only a process that has just started waits for the
// revocations, and not for long: it knows of none yet.
package admin

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/tokenward/tokenward/internal/probe"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/metrics"
	"github.com/tokenward/tokenward/sidecar/reload"
	"github.com/tokenward/tokenward/sidecar/revocation"
)

// Settings says what is in force.
type Settings interface {
	Current() *decide.Policy
	Status() reload.Status
}

// Revocations says how the stream is doing.
type Revocations interface {
	Status() revocation.Status
}

// firstSync is how long a process that has just started is not ready because it does
// not know the revoked sessions yet. An issuer that is down must not keep pods from
// starting, so it is short.
const firstSync = 5 * time.Second

const (
	// ReadyPath answers as soon as the process serves, with 200 once it is ready.
	ReadyPath = "/readyz"
	// LeavePath is where a caller in the pod says that the pod ends.
	LeavePath = "/leave"
)

// Handler is the admin port. Set Draining when the process begins to end.
type Handler struct {
	Settings    Settings
	Revocations Revocations
	Metrics     *metrics.Metrics
	// Probes serves what is under [probe.PathPrefix].
	Probes http.Handler
	Now    func() time.Time
	// Started is when the process began.
	Started  time.Time
	Draining atomic.Bool
	// Leave is called when the pod begins to end, perhaps more than once. The pod stays
	// ready: what else takes it out of its Services is not for us to say.
	Leave func()
}

// Routes serves the endpoints.
func (h *Handler) Routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET "+ReadyPath, h.ready)
	mux.Handle("GET "+probe.PathPrefix, h.Probes)
	mux.HandleFunc("POST "+LeavePath, h.leave)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metrics.ContentType)
		_ = h.Metrics.Write(w) // the scraper has gone
	})
	return mux
}

// leave is for the pod itself: others could make clients connect anew all the time.
func (h *Handler) leave(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		http.Error(w, "for callers inside the pod only", http.StatusForbidden)
		return
	}
	h.Leave()
	w.WriteHeader(http.StatusNoContent)
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready bool `json:"ready"`
	// Reason says why not, and what to do.
	Reason      string             `json:"reason,omitempty"`
	Settings    SettingsDetail     `json:"settings"`
	Revocations RevocationsSummary `json:"revocations"`
}

// SettingsDetail is what is in force.
type SettingsDetail struct {
	Policy        string    `json:"policy,omitempty"`
	Generation    int64     `json:"generation,omitempty"`
	KeySetVersion int64     `json:"keySetVersion,omitempty"`
	LoadedAt      time.Time `json:"loadedAt,omitzero"`
	// Error is why the file as it is now is not in force.
	Error string `json:"error,omitempty"`
}

// RevocationsSummary is how old the knowledge of revocations is.
type RevocationsSummary struct {
	Synced bool `json:"synced"`
	// AgeSeconds since the issuer was last heard, or since the start.
	AgeSeconds float64 `json:"ageSeconds"`
	// Stale says that a revoked session might still pass.
	Stale bool `json:"stale"`
}

func (h *Handler) ready(w http.ResponseWriter, _ *http.Request) {
	readiness := h.Readiness()
	body, err := json.MarshalIndent(readiness, "", "  ")
	if err != nil {
		body = nil // strings, numbers and times: cannot fail
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !readiness.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n'))
}

// Readiness is the state of the process.
func (h *Handler) Readiness() Readiness {
	status := h.Settings.Status()
	age := h.RevocationAge()
	r := Readiness{Ready: true, Revocations: RevocationsSummary{
		Synced: h.Revocations.Status().Synced, AgeSeconds: age.Round(time.Millisecond).Seconds(), Stale: age > revocation.StaleAfter,
	}}
	r.Settings.LoadedAt = status.LoadedAt
	if status.Err != nil {
		r.Settings.Error = status.Err.Error()
	}
	if p := h.Settings.Current(); p != nil {
		r.Settings.Policy = p.Settings.Policy.Namespace + "/" + p.Settings.Policy.Name
		r.Settings.Generation = p.Settings.Policy.Generation
		r.Settings.KeySetVersion = p.Keys.Version()
	} else {
		r.Ready, r.Reason = false, "there are no settings yet: see the conditions of the TokenPolicy"
	}
	if !r.Revocations.Synced && h.Now().Sub(h.Started) < firstSync {
		r.Ready, r.Reason = false, "the revoked sessions are not known yet: waiting for the issuer, for a few seconds at most"
	}
	if h.Draining.Load() {
		r.Ready, r.Reason = false, "the process is ending"
	}
	return r
}

// RevocationAge is how long ago the issuer was last heard, or since the start.
func (h *Handler) RevocationAge() time.Duration {
	heard := h.Revocations.Status().LastHeard
	if heard.IsZero() {
		heard = h.Started
	}
	return h.Now().Sub(heard)
}

// Gauges adds what is read at each scrape.
func (h *Handler) Gauges(revoked, streams func() int) {
	m := h.Metrics
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	m.Gauge("tokenward_sidecar_ready", "1 when requests are served.", func() float64 { return flag(h.Readiness().Ready) })
	m.Gauge("tokenward_sidecar_settings_broken", "1 when the settings file as it is now cannot be used and older settings are in force.", func() float64 { return flag(h.Settings.Status().Err != nil) })
	m.Gauge("tokenward_sidecar_policy_generation", "Generation of the TokenPolicy in force, 0 for none.", func() float64 { return float64(h.Readiness().Settings.Generation) })
	m.Gauge("tokenward_sidecar_key_set_version", "Version of the key set in force.", func() float64 { return float64(h.Readiness().Settings.KeySetVersion) })
	m.Gauge("tokenward_sidecar_revocation_stream_synced", "1 while revocations arrive from the issuer.", func() float64 { return flag(h.Revocations.Status().Synced) })
	m.Gauge("tokenward_sidecar_revocation_age_seconds", "Seconds since the issuer was last heard on the stream of revocations.", func() float64 { return h.RevocationAge().Seconds() })
	m.Gauge("tokenward_sidecar_revoked_sessions", "Revoked sessions of which a token might still be alive.", func() float64 { return float64(revoked()) })
	m.Gauge("tokenward_sidecar_streams", "Streams of authenticated callers that are open.", func() float64 { return float64(streams()) })
	m.Gauge("tokenward_sidecar_remembered_tokens", "Verified tokens that are remembered.", func() float64 { tokens, _ := h.remembered(); return float64(tokens) })
	m.Gauge("tokenward_sidecar_remembered_bytes", "Memory of the remembered tokens, estimated.", func() float64 { _, bytes := h.remembered(); return float64(bytes) })
}

func (h *Handler) remembered() (tokens, bytes int) {
	if p := h.Settings.Current(); p != nil {
		return p.Remembered()
	}
	return 0, 0
}
