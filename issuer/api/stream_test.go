// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

// stream reads lines.
type stream struct {
	t       *testing.T
	scanner *bufio.Scanner
}

func open(t *testing.T, response *http.Response) *stream {
	t.Helper()
	if response.StatusCode != http.StatusOK || response.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("status %d, headers %v", response.StatusCode, response.Header)
	}
	return &stream{t, bufio.NewScanner(response.Body)}
}

func (s *stream) next() protocol.RevocationEvent {
	s.t.Helper()
	if !s.scanner.Scan() {
		s.t.Fatalf("the stream ended: %v", s.scanner.Err())
	}
	var event protocol.RevocationEvent
	if err := json.Unmarshal(s.scanner.Bytes(), &event); err != nil {
		s.t.Fatalf("%q: %v", s.scanner.Text(), err)
	}
	return event
}

func TestTheStreamSendsWhatWasAndWhatComes(t *testing.T) {
	server, s := newServer(t)
	revoke(t, s.policy.Sessions, "one")
	lines := open(t, send(t, server, http.MethodGet, streamPath, ""))
	if got := lines.next(); got.SessionID != "one" || got.Cursor == "" || got.ForgetAfter.Before(time.Now()) {
		t.Errorf("first: %+v", got)
	}
	synced := lines.next()
	if synced.SessionID != "" || synced.Cursor == "" {
		t.Errorf("then the heartbeat that says that this was all: %+v", synced)
	}
	revoke(t, s.policy.Sessions, "two")
	second := lines.next()
	if second.SessionID != "two" {
		t.Errorf("then: %+v", second)
	}
	revoke(t, s.policy.Sessions, "three")

	again := open(t, send(t, server, http.MethodGet, streamPath+"?since="+second.Cursor, ""))
	if got := again.next(); got.SessionID != "three" {
		t.Errorf("resumed: %+v", got)
	}
	if got := again.next(); got.SessionID != "" {
		t.Errorf("resumed, then: %+v", got)
	}
}

func TestASilentStreamBeats(t *testing.T) {
	server, _ := newServer(t)
	lines := open(t, send(t, server, http.MethodGet, streamPath, ""))
	first := lines.next()
	began := time.Now()
	second := lines.next()
	if took := time.Since(began); took > protocol.HeartbeatInterval || second.SessionID != "" || second.Cursor != first.Cursor {
		t.Errorf("after %v: %+v, first %+v", took, second, first)
	}
}

func TestTheStreamEndsWithTheServer(t *testing.T) {
	server, _, closing := newClosableServer(t)
	response := send(t, server, http.MethodGet, streamPath, "")
	open(t, response).next()
	close(closing)
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Errorf("it did not end in order: %v", err)
	}
}

func TestTheStreamEndsWithTheCallersToken(t *testing.T) {
	server, s := newServer(t)
	s.expires = time.Now().Add(300 * time.Millisecond)
	response := send(t, server, http.MethodGet, streamPath, "")
	if _, err := io.Copy(io.Discard, response.Body); err != nil || time.Now().Before(s.expires) {
		t.Errorf("ended too early or out of order: %v", err)
	}
}

func TestAnOverlongCursorIsRefused(t *testing.T) {
	server, _ := newServer(t)
	wantProblem(t, send(t, server, http.MethodGet, streamPath+"?since="+strings.Repeat("a", 2000), ""), 400, token.RequestInvalid, "since")
}
