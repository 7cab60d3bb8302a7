// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	first  = "e30.e30.0123456789012345678901234567890123456789"
	second = "e30.e31.0123456789012345678901234567890123456789"
)

// guarded is a workload as it should be: it exchanges the first token for the second.
func guarded(w http.ResponseWriter, r *http.Request) {
	refuse := func(reason string) {
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]string{"reason": reason})
	}
	switch token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); {
	case r.URL.Path == "/auth/token":
		_ = json.NewEncoder(w).Encode(map[string]string{"access_token": first})
	case token == "":
		refuse("token_missing")
	case token != first && token != second:
		refuse("signature_invalid")
	default:
		if token == first {
			w.Header().Set("Authorization", "Bearer "+second)
		}
		_ = json.NewEncoder(w).Encode(seen{Pod: "shop-1", Header: http.Header{"X-User-Id": {"alice"}}})
	}
}

// offered has a workload called until there were so many requests of each sort.
func offered(t *testing.T, workload http.HandlerFunc, change ...func(*Plan)) Report {
	t.Helper()
	server := httptest.NewServer(workload)
	defer server.Close()
	plan := Plan{URL: server.URL, Login: "{}", User: "alice", Sessions: 4, PerSecond: 400, BadPerSecond: 200, NewConnectionEvery: 5}
	for _, f := range change {
		f(&plan)
	}
	run, err := Start(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for r := run.Report(); r.Sent < 40 || r.Refused+r.LetIn+r.Failures() < 10; r = run.Report() {
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
	return run.Stop()
}

func TestWhatWorksIsCounted(t *testing.T) {
	r := offered(t, guarded)
	if r.OK != r.Sent || r.Failures() != 0 || r.LetIn != 0 || r.Unguarded != 0 || r.Refused == 0 || len(r.Examples) != 0 {
		t.Errorf("%+v", r)
	}
	if r.NewTokens < 1 || r.NewTokens > 4 {
		t.Errorf("%d new tokens for 4 sessions", r.NewTokens)
	}
	if r.Pods["shop-1"] != r.OK || r.Latency.P50 <= 0 || r.Latency.Max < r.Latency.P50 {
		t.Errorf("%+v", r)
	}
	if r.Connections < r.Sent/5 { // a slow machine opens more of them
		t.Errorf("%d connections for %d requests, of which every fifth has its own", r.Connections, r.Sent)
	}
}

func TestWhatGoesWrongIsCounted(t *testing.T) {
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/auth/token" {
				guarded(w, r)
				return
			}
			_, _ = w.Write([]byte(body))
		}
	}
	t.Run("an application that nobody guards", func(t *testing.T) {
		r := offered(t, answer(`{"pod":"shop-1","header":{}}`))
		if r.OK != 0 || r.Unguarded != r.Sent || r.LetIn == 0 || r.Refused != 0 || r.Failures() != r.Sent+r.LetIn {
			t.Errorf("%+v", r)
		}
	})
	t.Run("an answer of somebody else", func(t *testing.T) {
		if r := offered(t, answer(`<html>`)); r.OK != 0 || r.Failed["status 200, and not from the application"] != r.Sent {
			t.Errorf("%+v", r)
		}
	})
	t.Run("an outage", func(t *testing.T) {
		r := offered(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/auth/token" {
				guarded(w, r)
				return
			}
			http.Error(w, `{"reason":"issuer_unavailable"}`, http.StatusServiceUnavailable)
		})
		if r.OK != 0 || r.Refused != 0 || r.LetIn != 0 || r.Failed["status 503 issuer_unavailable"] != r.Sent || len(r.Examples) == 0 || len(r.Examples) > maxExamples {
			t.Errorf("%+v", r)
		}
		for _, e := range r.Examples {
			if last := r.LastFailed[e.What]; last < e.Time {
				t.Errorf("the last one is of %s: %+v", last, e)
			}
		}
	})
	t.Run("a kept connection that is cut is not tried again", func(t *testing.T) {
		var mu sync.Mutex
		requests := map[string]int{}
		r := offered(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			requests[r.RemoteAddr]++
			n := requests[r.RemoteAddr]
			mu.Unlock()
			if n == 2 {
				panic(http.ErrAbortHandler)
			}
			guarded(w, r)
		}, func(p *Plan) { p.NewConnectionEvery, p.Sessions = 0, 1 })
		if r.Failures() == 0 || r.OK+r.Failures() > r.Sent+r.Failures() || r.Examples[0].Connection != "of 1 requests before" {
			t.Errorf("%+v", r)
		}
	})
}

func TestALoginThatFailsIsSaid(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"reason":"rate_limited"}`, http.StatusTooManyRequests)
	}))
	defer server.Close()
	if _, err := Start(t.Context(), Plan{URL: server.URL, Sessions: 5, PerSecond: 1}); err == nil || !strings.Contains(err.Error(), "rate_limited") {
		t.Errorf("error %v", err)
	}
}

func TestTheScheduleDoesNotWaitForAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		began, sent := time.Now(), 0
		offer(ctx, 100, func(i int, due time.Time) {
			if want := began.Add(time.Duration(i) * 10 * time.Millisecond); i != sent || !due.Equal(want) {
				t.Errorf("request %d, the %dth, is due at %s, want %s", i, sent, due, want)
			}
			sent++
			if i == 200 {
				time.Sleep(3 * time.Second) // a standstill: what is missed comes at once
			}
		})
		if sent < 999 || sent > 1001 {
			t.Errorf("%d requests in 10 s, want 1000", sent)
		}
	})
}

func TestATokenThatIsNotTheNewestIsNotKept(t *testing.T) {
	s := newSession(Plan{}, newTally())
	s.token = second
	if s.keep(first, http.Header{"Authorization": {"Bearer " + first}}) || s.token != second {
		t.Error("the answer of an older request has put an older token back")
	}
}

func TestQuantiles(t *testing.T) {
	var all []time.Duration
	for i := range 1000 {
		all = append(all, time.Duration(i+1)*time.Millisecond)
	}
	for part, want := range map[float64]Milliseconds{0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := quantile(all, part); got != want {
			t.Errorf("%g: %g, want %g", part, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 || quantile(all[:1], 0.999) != 1 {
		t.Error("few of them")
	}
}
