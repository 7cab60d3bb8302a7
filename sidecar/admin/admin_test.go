// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/sidecar/admin"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/reload"
	"github.com/tokenward/tokenward/sidecar/revocation"
)

// inForce are settings that were read.
type inForce struct{}

func (inForce) Current() *decide.Policy {
	return &decide.Policy{Settings: &settings.Settings{}}
}

func (inForce) Status() reload.Status { return reload.Status{} }

type stream revocation.Status

func (s stream) Status() revocation.Status { return revocation.Status(s) }

func TestAProcessThatHasJustStartedWaitsForTheRevocations(t *testing.T) {
	started := time.Date(2026, time.November, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		synced bool
		after  time.Duration
		ready  bool
	}{
		"at first, without them":          {synced: false, after: time.Second, ready: false},
		"as soon as they are known":       {synced: true, after: time.Second, ready: true},
		"in an outage, after a while":     {synced: false, after: 6 * time.Second, ready: true},
		"when the stream is cut later on": {synced: false, after: time.Hour, ready: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := &admin.Handler{
				Settings: inForce{}, Revocations: stream{Synced: test.synced},
				Now: func() time.Time { return started.Add(test.after) }, Started: started,
			}
			if got := h.Readiness(); got.Ready != test.ready || got.Ready != (got.Reason == "") {
				t.Errorf("readiness %+v", got)
			}
		})
	}
}

func TestOnlyThePodItselfSaysThatItEnds(t *testing.T) {
	for from, want := range map[string]int{
		"127.0.0.1:1":          http.StatusNoContent,
		"[::1]:1":              http.StatusNoContent,
		"[::ffff:127.0.0.1]:1": http.StatusNoContent,
		"10.244.1.7:1":         http.StatusForbidden,
		"[fd00::7]:1":          http.StatusForbidden,
		"":                     http.StatusForbidden,
	} {
		left := 0
		h := &admin.Handler{Probes: http.NotFoundHandler(), Leave: func() { left++ }}
		request, answer := httptest.NewRequest(http.MethodPost, admin.LeavePath, nil), httptest.NewRecorder()
		request.RemoteAddr = from
		h.Routes().ServeHTTP(answer, request)
		if answer.Code != want || (left == 1) != (want == http.StatusNoContent) {
			t.Errorf("from %q: status %d and %d calls, want %d", from, answer.Code, left, want)
		}
	}
}
