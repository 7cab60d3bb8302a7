// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package caller

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
)

var start = time.Unix(1_800_000_000, 0)

// apiServer answers every review with one status.
type apiServer struct {
	status authenticationv1.TokenReviewStatus
	err    error
	asked  atomic.Int32
}

func (a *apiServer) ReviewToken(_ context.Context, _, audience string) (authenticationv1.TokenReviewStatus, error) {
	a.asked.Add(1)
	if audience != "tokenward" {
		return authenticationv1.TokenReviewStatus{}, errors.New("the review is for another audience")
	}
	return a.status, a.err
}

func approved() authenticationv1.TokenReviewStatus {
	return authenticationv1.TokenReviewStatus{
		Authenticated: true,
		Audiences:     []string{"tokenward"},
		User: authenticationv1.UserInfo{
			Username: "system:serviceaccount:shop:default",
			Extra:    map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"shop-1"}},
		},
	}
}

// jwt is a token by its looks.
func jwt(aud string, exp time.Time) string {
	payload := fmt.Sprintf(`{"aud":[%q],"exp":%d,"canary":"c4n4ry"}`, aud, exp.Unix())
	return "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

type fixture struct {
	*Authenticator
	server   *apiServer
	clock    atomic.Int64
	mu       sync.Mutex
	outcomes map[Outcome]int
}

func newFixture() *fixture {
	f := &fixture{server: &apiServer{status: approved()}, outcomes: map[Outcome]int{}}
	f.clock.Store(start.Unix())
	f.Authenticator = New(f.server, func() time.Time { return time.Unix(f.clock.Load(), 0) }, func(o Outcome) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.outcomes[o]++
	})
	return f
}

func TestACallerIsAPod(t *testing.T) {
	f := newFixture()
	got, err := f.Authenticate(t.Context(), "Bearer "+jwt("tokenward", start.Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	want := Pod{Namespace: "shop", ServiceAccount: "default", Name: "shop-1", TokenExpires: start.Add(time.Hour)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatTheAPIServerSaysMayBeARefusal(t *testing.T) {
	for name, change := range map[string]func(*authenticationv1.TokenReviewStatus){
		"not authenticated":                   func(s *authenticationv1.TokenReviewStatus) { s.Authenticated = false },
		"no audience confirmed":               func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil },
		"another audience confirmed":          func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"https://kubernetes.default.svc"} },
		"a person":                            func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "alice" },
		"a node":                              func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:node:a" },
		"a service account without namespace": func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount::default" },
		"a service account without name":      func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:shop" },
		"one part too many":                   func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:a:b:c" },
		"not bound to a pod":                  func(s *authenticationv1.TokenReviewStatus) { s.User.Extra = nil },
		"bound to two pods": func(s *authenticationv1.TokenReviewStatus) {
			s.User.Extra["authentication.kubernetes.io/pod-name"] = authenticationv1.ExtraValue{"a", "b"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture()
			change(&f.server.status)
			if got, err := f.Authenticate(t.Context(), "Bearer "+jwt("tokenward", start.Add(time.Hour))); !errors.Is(err, ErrRefused) || got != (Pod{}) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestWhatCannotBeAServiceAccountTokenNeverReachesTheAPIServer(t *testing.T) {
	good := jwt("tokenward", start.Add(time.Hour))
	for name, header := range map[string]string{
		"nothing":              "",
		"no scheme":            good,
		"Basic":                "Basic " + good,
		"no token":             "Bearer ",
		"not a JWT":            "Bearer c4n4ry",
		"two dots, no base64":  "Bearer c4n4ry.!.c4n4ry",
		"no JSON":              "Bearer a." + base64.RawURLEncoding.EncodeToString([]byte("c4n4ry")) + ".c",
		"for another audience": "Bearer " + jwt("vault", start.Add(time.Hour)),
		"expired":              "Bearer " + jwt("tokenward", start),
		"far too long":         "Bearer " + good + strings.Repeat("A", 20<<10),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture()
			_, err := f.Authenticate(t.Context(), header)
			if !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "c4n4ry") {
				t.Errorf("got %v", err)
			}
			if f.server.asked.Load() != 0 {
				t.Error("the API server was asked")
			}
		})
	}
}

func TestAnAnswerIsRememberedForAMinuteAndNeverPastTheTokensEnd(t *testing.T) {
	tests := map[string]struct {
		lives    time.Duration
		still    time.Duration // still remembered
		no       time.Duration // asked again, or refused as expired
		askedEnd int32
	}{
		"a minute":                {time.Hour, 59 * time.Second, 60 * time.Second, 2},
		"a token that ends first": {20 * time.Second, 19 * time.Second, 20 * time.Second, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture()
			header := "Bearer " + jwt("tokenward", start.Add(test.lives))
			for _, at := range []time.Duration{0, test.still, test.no} {
				f.clock.Store(start.Add(at).Unix())
				_, err := f.Authenticate(t.Context(), header)
				if expired := at >= test.lives; expired != errors.Is(err, ErrRefused) {
					t.Errorf("after %v: %v", at, err)
				}
				if at == test.still && f.server.asked.Load() != 1 {
					t.Errorf("after %v: asked %d times", at, f.server.asked.Load())
				}
			}
			if got := f.server.asked.Load(); got != test.askedEnd {
				t.Errorf("asked %d times, want %d", got, test.askedEnd)
			}
		})
	}
}

func TestARefusalIsRememberedForSecondsOnly(t *testing.T) {
	f := newFixture()
	f.server.status.Authenticated = false
	header := "Bearer " + jwt("tokenward", start.Add(time.Hour))
	for range 10 {
		if _, err := f.Authenticate(t.Context(), header); !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
	}
	if f.server.asked.Load() != 1 {
		t.Errorf("asked %d times", f.server.asked.Load())
	}
	f.server.status = approved()
	f.clock.Add(5)
	if _, err := f.Authenticate(t.Context(), header); err != nil {
		t.Errorf("after five seconds: %v", err)
	}
}

func TestWithoutTheAPIServerKnownCallersGoOnAndOthersAreUndecided(t *testing.T) {
	f := newFixture()
	known := "Bearer " + jwt("tokenward", start.Add(time.Hour))
	if _, err := f.Authenticate(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	f.server.err = errors.New("connection refused")
	if _, err := f.Authenticate(t.Context(), known); err != nil {
		t.Errorf("a known caller: %v", err)
	}
	unknown := "Bearer " + jwt("tokenward", start.Add(2*time.Hour))
	if _, err := f.Authenticate(t.Context(), unknown); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("another one: %v", err)
	}
	f.server.err = nil
	if _, err := f.Authenticate(t.Context(), unknown); err != nil {
		t.Errorf("when it is back, nothing of the outage is remembered: %v", err)
	}
	want := map[Outcome]int{Accepted: 2, Remembered: 1, Unavailable: 1}
	if diff := cmp.Diff(want, f.outcomes); diff != "" {
		t.Error(diff)
	}
}

func TestManyCallsOfOnePodAreOneReview(t *testing.T) {
	f := newFixture()
	header := "Bearer " + jwt("tokenward", start.Add(time.Hour))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := f.Authenticate(t.Context(), header); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if f.server.asked.Load() != 1 {
		t.Errorf("asked %d times", f.server.asked.Load())
	}
}

func TestTheMemoryIsBoundedAndAFloodOfForgedTokensMakesNobodyForgotten(t *testing.T) {
	var m memory
	for i := range maxRemembered + 100 {
		m.put(digest{byte(i), byte(i >> 8), byte(i >> 16)}, verdict{until: start.Add(time.Minute)}, start)
	}
	if len(m.verdicts) > maxRemembered {
		t.Errorf("%d remembered", len(m.verdicts))
	}
	m.put(digest{1}, verdict{until: start.Add(time.Hour)}, start.Add(2*time.Minute))
	if len(m.verdicts) != 1 {
		t.Errorf("%d remembered after all but one ended", len(m.verdicts))
	}

	f := newFixture()
	known := "Bearer " + jwt("tokenward", start.Add(time.Hour))
	if _, err := f.Authenticate(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	f.server.status.Authenticated = false
	for i := range maxRemembered + 100 {
		_, _ = f.Authenticate(t.Context(), "Bearer "+jwt("tokenward", start.Add(time.Hour+time.Duration(i+1)*time.Second)))
	}
	asked := f.server.asked.Load()
	if _, err := f.Authenticate(t.Context(), known); err != nil || f.server.asked.Load() != asked {
		t.Errorf("the known caller was forgotten: %v", err)
	}
}
