// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/api"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// Only a header that says one address is one; everything else is "nobody knows", which
// is one client for the limits and never none.
func TestTheClientsAddressIsWhatTheSidecarSays(t *testing.T) {
	tests := map[string]struct {
		said []string
		want string
	}{
		"IPv4":             {[]string{"192.0.2.7"}, "192.0.2.7"},
		"IPv6":             {[]string{"2001:db8::7"}, "2001:db8::7"},
		"mapped":           {[]string{"::ffff:192.0.2.7"}, "::ffff:192.0.2.7"},
		"zone":             {[]string{"fe80::7%eth0"}, "fe80::7%eth0"},
		"none":             {nil, ""},
		"empty":            {[]string{""}, ""},
		"two":              {[]string{"192.0.2.7", "192.0.2.8"}, ""},
		"a list":           {[]string{"192.0.2.7, 192.0.2.8"}, ""},
		"with a port":      {[]string{"192.0.2.7:1234"}, ""},
		"in brackets":      {[]string{"[2001:db8::7]"}, ""},
		"leading zeros":    {[]string{"192.0.02.7"}, ""},
		"a name":           {[]string{"localhost"}, ""},
		"a network":        {[]string{"192.0.2.0/24"}, ""},
		"much of anything": {[]string{strings.Repeat("1", 10_000)}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server, s := newServer(t)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+tokenPath, strings.NewReader(`{"id": "a"}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = http.Header{
				"Authorization": {"Bearer pod-token"}, "Content-Type": {asJSON}, protocol.ClientAddressHeader: test.said,
				"X-Forwarded-For": {"203.0.113.1"}, "Forwarded": {"for=203.0.113.1"}, "X-Real-Ip": {"203.0.113.1"},
			}
			response, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			want := netip.Addr{}
			if test.want != "" {
				want = netip.MustParseAddr(test.want)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.from) != 1 || s.from[0] != want {
				t.Errorf("status %d; the login came from %v, want %v", response.StatusCode, s.from, want)
			}
		})
	}
}

// A second has one line for each kind of refusal, and the next says how many there were.
func TestAFloodOfRefusedCallsDoesNotFillTheLog(t *testing.T) {
	s := &stub{policy: &exchange.Policy{UID: "uid", Namespace: "shop", Name: "web", DenialStatus: 401}, expires: time.Unix(1<<40, 0)}
	var clock atomic.Int64
	clock.Store(1_800_000_000_000)
	handler := api.NewHandler(api.Options{
		Callers: s, Policies: s, Exchange: s, Observer: s, Log: funcr.New(s.write, funcr.Options{}),
		Now: func() time.Time { return time.UnixMilli(clock.Load()) }, Closing: make(chan struct{}),
	})
	call := func(path, pod string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader([]byte(`{"id": "a", "access_token": "a"}`)))
		r.Header.Set("Content-Type", asJSON)
		r.Header.Set("Authorization", "Bearer "+pod)
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	limited := &refusal.Error{Reason: token.RateLimited, Status: 429, RetryAfter: time.Minute}
	s.login = func(map[string]string) (exchange.Token, error) { return exchange.Token{}, limited }
	s.token = func(string) (exchange.Token, error) { return exchange.Token{}, refusal.Denied(token.TokenReused, "no") }
	lines := func() []string {
		_, log := s.seen()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log.Reset()
		return strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	}

	for range 500 {
		call(tokenPath, "pod-token")
		call(refreshPath, "pod-token") // another kind is not hidden by it
		call(tokenPath, "made-up")     // and neither is one that names a policy without being let in
		call(protocol.Path("shop", "policy-that-was-made-up", protocol.CallLogin), "made-up")
		call(protocol.Path("shop", "policy-that-was-made-up", protocol.CallLogin), "pod-token")
	}
	first := lines()
	if len(first) != 3 {
		t.Errorf("%d lines: %q", len(first), first)
	}
	if text := strings.Join(first, "\n"); strings.Contains(text, "suppressed") || strings.Count(text, "rate_limited") != 2 || strings.Count(text, "token_reused") != 2 {
		t.Errorf("log %s", text)
	}

	clock.Add(999)
	call(tokenPath, "pod-token")
	clock.Add(1)
	s.login = func(map[string]string) (exchange.Token, error) {
		return exchange.Token{How: exchange.New, Subject: "alice", Session: "sid"}, nil
	}
	call(tokenPath, "pod-token")
	call(tokenPath, "pod-token")
	if granted := lines(); len(granted) != 2 || strings.Contains(granted[1], "suppressed") {
		t.Errorf("each login that is granted has its line: %q", granted)
	}
	s.login = func(map[string]string) (exchange.Token, error) { return exchange.Token{}, limited }
	call(tokenPath, "pod-token")
	if again := lines(); len(again) != 1 || !strings.Contains(again[0], `"suppressed"=500`) {
		t.Errorf("want one line that speaks of 500 more: %q", again)
	}
	if outcomes, _ := s.seen(); len(outcomes) != 5*500+4 {
		t.Errorf("%d calls counted", len(outcomes))
	}
}
