// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

func newClient(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	return clientOf(t, newIssuer(t, handler))
}

func newIssuer(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func clientOf(t *testing.T, server *httptest.Server) *Client {
	t.Helper()
	identity := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(identity, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &settings.Settings{
		Policy: settings.Policy{Namespace: "shop", Name: "web", UID: "u"},
		IssuerService: settings.IssuerService{
			URL:      server.URL,
			CABundle: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
		},
	}
	c := &Client{Settings: func() *settings.Settings { return s }, IdentityFile: identity, Metrics: metrics.New(), Now: time.Now}
	t.Cleanup(func() {
		if c.transport != nil {
			c.transport.CloseIdleConnections()
		}
	})
	return c
}

func TestCallsAreMadeAsTheProtocolSays(t *testing.T) {
	var got *http.Request
	var asked protocol.RefreshRequest
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		_ = json.NewDecoder(r.Body).Decode(&asked)
		_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "new", TokenType: "Bearer", ExpiresIn: 5})
	})
	response, err := c.refresh(t.Context(), "old")
	if err != nil || response.AccessToken != "new" {
		t.Fatal(response, err)
	}
	if got.URL.Path != "/v1/policies/shop/web/refresh" || got.Header.Get("Authorization") != "Bearer first" || asked.AccessToken != "old" || got.ProtoMajor != 2 {
		t.Fatalf("%s %v %+v", got.URL.Path, got.Header, asked)
	}
	if err := os.WriteFile(c.IdentityFile, []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.refresh(t.Context(), "old"); err != nil || got.Header.Get("Authorization") != "Bearer second" {
		t.Fatalf("a new identity is not read: %v", err)
	}
}

func TestWhatIsNoAnswerIsUnavailable(t *testing.T) {
	var answer http.HandlerFunc
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) { answer(w, r) })
	for name, handler := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere", http.StatusTemporaryRedirect)
		},
		"a page":              func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusForbidden) },
		"another status":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) },
		"no token":            func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"access_token":""}`)) },
		"not JSON":            func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`token`)) },
		"too much":            func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(strings.Repeat("a", maxAnswer+1))) },
		"a broken connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		answer = handler
		_, err := c.refresh(t.Context(), "secret-token")
		if _, refused := errors.AsType[*Refusal](err); refused || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: error %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret-token") || strings.Contains(err.Error(), "first")) {
			t.Errorf("%s: the error holds a token: %v", name, err)
		}
	}
}

func TestOnlyTheSettingsAuthoritiesAreTrusted(t *testing.T) {
	c := newClient(t, func(http.ResponseWriter, *http.Request) {})
	other := newClient(t, func(http.ResponseWriter, *http.Request) { t.Error("a foreign issuer was asked") })
	mixed := *c.Settings()
	mixed.IssuerService.URL = other.Settings().IssuerService.URL
	// The test servers share one certificate: use an authority that signed nothing.
	mixed.IssuerService.CABundle = foreignCA(t)
	c.Settings = func() *settings.Settings { return &mixed }
	if _, err := c.refresh(t.Context(), "x"); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
}

func TestIdentityThatIsNoneIsNamed(t *testing.T) {
	c := newClient(t, func(http.ResponseWriter, *http.Request) { t.Error("asked without an identity") })
	for _, content := range []string{"", " \n", "two words", "two\nlines"} {
		if err := os.WriteFile(c.IdentityFile, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.refresh(t.Context(), "x"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.IdentityFile) {
			t.Errorf("%q: error %v", content, err)
		}
	}
	c.IdentityFile += ".missing"
	if _, err := c.refresh(t.Context(), "x"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

func TestRefreshesOfDifferentSessionsAreNotShared(t *testing.T) {
	var calls atomic.Int32
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		var asked protocol.RefreshRequest
		_ = json.NewDecoder(r.Body).Decode(&asked)
		_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "new-" + asked.AccessToken})
	})
	r := &Refresher{Client: c}
	keys := map[string]Key{
		"a": {PolicyUID: "u", SessionID: "s1", Generation: 1},
		"b": {PolicyUID: "u", SessionID: "s", Generation: 11},
		"c": {PolicyUID: "us", SessionID: "1", Generation: 1},
		"d": {PolicyUID: "u", SessionID: "s2", Generation: 1},
		"e": {PolicyUID: "u", SessionID: "s2", Generation: 1, TokenID: "other"},
	}
	for range 2 { // the second time from memory
		for raw, key := range keys {
			if got, err := r.Refresh(t.Context(), key, raw); err != nil || got.AccessToken != "new-"+raw {
				t.Errorf("%s: %q, %v", raw, got.AccessToken, err)
			}
		}
	}
	if calls.Load() != 5 {
		t.Errorf("%d calls, want 5", calls.Load())
	}
}

// The first token is two generations old when it comes again: the issuer is to see it.
func TestAnAnswerIsNotSharedOnceTheSessionHasMovedOn(t *testing.T) {
	var asked sync.Map // how often, by token
	times := func(raw string) int {
		n, _ := asked.LoadOrStore(raw, new(atomic.Int32))
		return int(n.(*atomic.Int32).Load())
	}
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		var request protocol.RefreshRequest
		_ = json.NewDecoder(r.Body).Decode(&request)
		n, _ := asked.LoadOrStore(request.AccessToken, new(atomic.Int32))
		n.(*atomic.Int32).Add(1)
		_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "after-" + request.AccessToken})
	})
	now := time.Now()
	c.Now = func() time.Time { return now }
	r := &Refresher{Client: c}
	refresh := func(session, raw string, generation int64) {
		t.Helper()
		key := Key{PolicyUID: "u", SessionID: session, Generation: generation, TokenID: raw}
		if got, err := r.Refresh(t.Context(), key, raw); err != nil || got.AccessToken != "after-"+raw {
			t.Fatalf("%s: %q, %v", raw, got.AccessToken, err)
		}
	}
	refresh("s", "first", 1)
	refresh("t", "of another session", 1)
	refresh("s", "first", 1)
	if times("first") != 1 {
		t.Fatalf("asked %d times, want once: the answer is shared", times("first"))
	}
	refresh("s", "second", 2)
	refresh("s", "first", 1)
	if times("first") != 2 {
		t.Error("the answer was shared although the session has moved on")
	}
	refresh("t", "of another session", 1)
	if times("of another session") != 1 {
		t.Error("another session's answer was forgotten")
	}
}

func TestACallerThatGivesUpDoesNotTakeTheOthersDown(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{})
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "new"})
	})
	r := &Refresher{Client: c}
	key := Key{SessionID: "s"}
	impatient, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := r.Refresh(impatient, key, "x")
		first <- err
	}()
	<-entered
	second := make(chan error, 1)
	go func() {
		_, err := r.Refresh(t.Context(), key, "x")
		second <- err
	}()
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who gave up: %v", err)
	}
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the other: %v", err)
	}
	r.Wait()
}

func keySet(t *testing.T, version int64, keys ...*token.PrivateKey) *token.KeySet {
	t.Helper()
	public := make([]token.PublicKey, 0, len(keys))
	for _, k := range keys {
		public = append(public, k.Public())
	}
	set, err := token.NewKeySet("o", version, public)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestKeysAreFetchedOncePerSecond(t *testing.T) {
	key, err := token.GenerateKey(token.EdDSA, 0)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var fetched []time.Time
		known := keySet(t, 1)
		f := &KeyFinder{Now: time.Now, Offer: func(*token.KeySet) {}, Fetch: func(context.Context) (*token.KeySet, error) {
			mu.Lock()
			defer mu.Unlock()
			fetched = append(fetched, time.Now())
			return known, nil
		}}
		for range 5 {
			var wg sync.WaitGroup
			for i := range 30 {
				wg.Go(func() {
					if found, err := f.Find(t.Context(), string(rune('a'+i))); found || err != nil {
						t.Errorf("found %v, %v", found, err)
					}
				})
			}
			wg.Wait()
		}
		// Those who came when the first answer had just arrived shared a second one.
		asked := len(fetched)
		if asked > 2 {
			t.Fatalf("keys that the issuer does not know were asked for %d times", asked)
		}
		mu.Lock()
		known = keySet(t, 2, key)
		mu.Unlock()
		// A key that nobody asked about yet waits for its second and is found.
		if found, err := f.Find(t.Context(), key.Public().ID); !found || err != nil {
			t.Fatalf("found %v, %v", found, err)
		}
		time.Sleep(rememberMiss)
		if found, _ := f.Find(t.Context(), "a"); found || len(fetched) != asked+2 {
			t.Fatalf("%d fetches after a new key and a forgotten miss, want %d", len(fetched), asked+2)
		}
		for i := range fetched[1:] {
			if gap := fetched[i+1].Sub(fetched[i]); gap < fetchEvery {
				t.Fatalf("two fetches were %s apart", gap)
			}
		}
	})
}

func TestAFloodOfKeyIDsWaitsInBoundedNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		f := &KeyFinder{Now: time.Now, Offer: func(*token.KeySet) {}, Fetch: func(context.Context) (*token.KeySet, error) {
			<-block
			return keySet(t, 1), nil
		}}
		var refused atomic.Int32
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				if _, err := f.Find(t.Context(), string(rune(i))); errors.Is(err, ErrUnavailable) {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if refused.Load() != 500-maxWaiting {
			t.Errorf("%d of 500 did not wait", refused.Load())
		}
		close(block)
		wg.Wait()
	})
}

func TestAnOutageIsNoAnswerAboutAKey(t *testing.T) {
	f := &KeyFinder{Now: time.Now, Offer: func(*token.KeySet) {}, Fetch: func(context.Context) (*token.KeySet, error) { return nil, ErrUnavailable }}
	if found, err := f.Find(t.Context(), "a"); found || !errors.Is(err, ErrUnavailable) {
		t.Fatalf("found %v, %v", found, err)
	}
}

func TestACallerThatGivesUpDoesNotPauseEarlyRefreshes(t *testing.T) {
	release := make(chan struct{})
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "new"})
	})
	r := &Refresher{Client: c}
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, ok, err := r.RefreshEarly(gone, Key{SessionID: "s"}, "x"); ok || err == nil {
		t.Errorf("the one who gave up: %v, %v", ok, err)
	}
	close(release)
	if _, ok, err := r.RefreshEarly(t.Context(), Key{SessionID: "s"}, "x"); !ok || err != nil {
		t.Errorf("the next one: %v, %v", ok, err)
	}
	r.Wait()
}
