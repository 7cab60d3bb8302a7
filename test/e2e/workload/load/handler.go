// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
)

// Handler lets a test have a load offered from inside the cluster:
//
//	POST /start   with a Plan; answers when the first session is logged in
//	GET  /report  a Report
//	POST /stop    ends the offer, answers with the last Report
//
// It has one load at a time.
type Handler struct {
	mu  sync.Mutex
	run *Run
}

var (
	errRunning = errors.New("a load is being offered: stop it first")
	errIdle    = errors.New("no load is being offered: start one first")
)

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var (
		report Report
		err    error
	)
	switch r.Method + " " + r.URL.Path {
	case "GET /healthz":
		return
	case "POST /start":
		err = h.start(r)
	case "GET /report", "POST /stop":
		if h.run == nil {
			err = errIdle
			break
		}
		if r.URL.Path == "/report" {
			report = h.run.Report()
			break
		}
		report, h.run = h.run.Stop(), nil
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(report)
}

func (h *Handler) start(r *http.Request) error {
	if h.run != nil {
		return errRunning
	}
	var plan Plan
	if err := json.NewDecoder(r.Body).Decode(&plan); err != nil {
		return err
	}
	run, err := Start(r.Context(), plan)
	h.run = run
	return err
}
