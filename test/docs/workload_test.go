// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

// workload answers as a sidecar does whose tokens have all expired by the next call: each
// call with the current token brings the next one, and an older one is refused. So a
// client that does not keep the newest token does not get far. That a sidecar does answer
// so is tested in package sidecar.
type workload struct {
	*httptest.Server

	mu      sync.Mutex
	current int
	calls   []string // "METHOD path token"
	logins  int
	refused []token.Reason
}

// The login of the README.
const loginBody = `{"id":"alice","phone":"+82-10-1234-5678","password":"correct horse battery staple"}`

func newWorkload(t *testing.T) *workload {
	t.Helper()
	w := &workload{current: 1}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/token", w.login)
	mux.HandleFunc("POST /auth/logout", w.call(func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusNoContent) }))
	mux.HandleFunc("GET /orders", w.call(func(rw http.ResponseWriter) { _, _ = rw.Write([]byte("[]\n")) }))
	w.Server = httptest.NewServer(mux)
	t.Cleanup(w.Close)
	return w
}

func (w *workload) login(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var got, want map[string]string
	_ = json.Unmarshal([]byte(loginBody), &want)
	if json.NewDecoder(r.Body).Decode(&got) != nil || r.Header.Get("Content-Type") != "application/json" || fmt.Sprint(got) != fmt.Sprint(want) {
		w.refuse(rw, token.CredentialsInvalid)
		return
	}
	w.logins++
	body, _ := json.Marshal(protocol.TokenResponse{AccessToken: w.name(w.current), TokenType: "Bearer", ExpiresIn: 300})
	rw.Header().Set("Content-Type", "application/json")
	_, _ = rw.Write(body)
}

func (*workload) name(n int) string { return fmt.Sprintf("token-%d", n) }

func (w *workload) call(answer func(http.ResponseWriter)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case !ok:
			w.refuse(rw, token.TokenMissing)
			return
		case raw != w.name(w.current):
			w.refuse(rw, token.TokenReused)
			return
		}
		w.calls = append(w.calls, r.Method+" "+r.URL.Path+" "+raw)
		w.current++
		rw.Header().Set("Authorization", "Bearer "+w.name(w.current))
		answer(rw)
	}
}

func (w *workload) refuse(rw http.ResponseWriter, reason token.Reason) {
	w.refused = append(w.refused, reason)
	rw.Header().Set("Content-Type", protocol.ProblemContentType)
	rw.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(rw).Encode(protocol.NewProblem(http.StatusForbidden, reason, ""))
}

// took checks the calls that came, and that nothing was refused.
func (w *workload) took(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if fmt.Sprint(w.calls) != fmt.Sprint(want) || len(w.refused) > 0 {
		t.Errorf("the workload took %q and refused for %q; want %q", w.calls, w.refused, want)
	}
}
