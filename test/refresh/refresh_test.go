// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package refresh_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// rounds of the test below: the figure of the first release.
const rounds = 100

// startApp answers with what it was told: the token that it sees.
func startApp(t *testing.T) string {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	}))
	t.Cleanup(app.Close)
	return app.Listener.Addr().String()
}

func TestAHundredRequestsWithOneExpiredTokenThroughTwoSidecarsMakeOneRotation(t *testing.T) {
	w := start(t)
	w.clock.behind.Store(int64(2 * time.Minute)) // the tokens live for 30 seconds
	expired := make([]string, rounds)
	if err := all(rounds, 4, func(i int) (err error) { // a login hashes: 4 at once are enough
		expired[i], err = login(t, w.sidecars[i%2])
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.clock.behind.Store(0)

	for round, token := range expired {
		successors := map[string]int{}
		var mu sync.Mutex
		if err := all(100, 100, func(i int) error {
			successor, err := call(t, w.sidecars[i%2], token)
			mu.Lock()
			defer mu.Unlock()
			successors[successor]++
			return err
		}); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if len(successors) != 1 {
			t.Fatalf("round %d: %d different new tokens", round, len(successors))
		}
		for successor := range successors {
			if got := generation(t, successor); got != 2 {
				t.Fatalf("round %d: the new token is of generation %d: more than one rotation", round, got)
			}
		}
	}
}

// all calls f for 0 to n-1, some at once, and returns what went wrong.
func all(n, atOnce int, f func(i int) error) error {
	errs := make([]error, n)
	slots := make(chan struct{}, atOnce)
	var calls sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	calls.Wait()
	return errors.Join(errs...)
}

func login(t *testing.T, base string) (string, error) {
	t.Helper()
	body := fmt.Sprintf(`{"id": "alice", "password": %q}`, secret)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/auth/token", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	var granted struct {
		AccessToken string `json:"access_token"`
		Reason      string `json:"reason"`
	}
	if err := json.NewDecoder(response.Body).Decode(&granted); err != nil {
		return "", err
	}
	if granted.AccessToken == "" {
		return "", fmt.Errorf("log in: %d %s", response.StatusCode, granted.Reason)
	}
	return granted.AccessToken, nil
}

// call returns the new token of the response header, which must be the one that the
// application saw.
func call(t *testing.T, base, token string) (string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/orders", http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	seen, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("answered %d: %s", response.StatusCode, seen)
	}
	successor, ok := strings.CutPrefix(response.Header.Get("Authorization"), "Bearer ")
	if !ok || successor != string(seen) {
		return "", errors.New("the response header does not carry the token that the application saw")
	}
	return successor, nil
}

func generation(t *testing.T, token string) int64 {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Generation int64 `json:"gen"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims.Generation
}
