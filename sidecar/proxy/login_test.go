// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// deadlines notes the read deadlines of a connection.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

// SetReadDeadline is for [http.ResponseController].
func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// The server reads on while the issuer hashes a password. A deadline that passes then
// ends the request's context, and with it the login.
func TestTheDeadlineOfALoginsBodyEndsWithTheBody(t *testing.T) {
	w := &deadlines{ResponseWriter: httptest.NewRecorder()}
	x := &exchange{request: httptest.NewRequest(http.MethodPost, "/auth/token", strings.NewReader("{}"))}
	x.w = &responseWriter{ResponseWriter: w, exchange: x}
	if body, status, _ := x.readBody(); status != 0 || string(body) != "{}" {
		t.Fatalf("status %d, body %q", status, body)
	}
	if len(w.set) != 2 || w.set[0].IsZero() || !w.set[1].IsZero() {
		t.Fatalf("deadlines %v, want one and its end", w.set)
	}
}
