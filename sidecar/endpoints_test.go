// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

func TestLoginIsRelayedVerbatim(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token()
	var got received
	w.issuer.set(func() {
		w.issuer.login = func(rw http.ResponseWriter, r *http.Request) {
			data, _ := io.ReadAll(r.Body)
			got = received{Header: r.Header.Clone(), Body: string(data)}
			_ = json.NewEncoder(rw).Encode(protocol.TokenResponse{AccessToken: raw, TokenType: "Bearer", ExpiresIn: 300})
		}
	})
	a := w.do("POST", "/auth/token", header("Content-Type", "application/json; charset=utf-8"), body(`{"id":"alice","password":"x"}`),
		header("Tokenward-Client-Address", "192.0.2.9"), header("Authorization", "Bearer spoof"), header("Origin", "https://web.example"))
	var response protocol.TokenResponse
	if err := json.Unmarshal([]byte(a.Body), &response); err != nil || a.Status != 200 || response.AccessToken != raw || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	if got.Body != `{"id":"alice","password":"x"}` || got.Header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("the issuer saw %q %q", got.Header.Get("Content-Type"), got.Body)
	}
	if address := got.Header["Tokenward-Client-Address"]; len(address) != 1 || address[0] != "127.0.0.1" {
		t.Errorf("client address %q", address)
	}
	if got.Header.Get("Authorization") != "Bearer pod-identity-canary" {
		t.Error("the sidecar did not say who it is")
	}
	if a.Header.Get("Access-Control-Allow-Origin") != "https://web.example" {
		t.Error("a browser cannot read the token")
	}
	if len(w.backend.take()) != 0 {
		t.Error("the application saw the login")
	}
}

func TestLoginRefusals(t *testing.T) {
	w := newWorld(t)
	deny := func(p protocol.Problem, retry string) func(http.ResponseWriter, *http.Request) {
		return func(rw http.ResponseWriter, _ *http.Request) {
			if retry != "" {
				rw.Header().Set("Retry-After", retry)
			}
			problem(rw, p)
		}
	}
	json, form := header("Content-Type", "application/json"), header("Content-Type", "application/x-www-form-urlencoded")
	tests := map[string]struct {
		login  func(http.ResponseWriter, *http.Request)
		with   []option
		status int
		reason token.Reason
		retry  string
		calls  int
	}{
		"wrong credentials":     {deny(protocol.NewProblem(403, token.CredentialsInvalid, ""), ""), []option{json, body("{}")}, 403, token.CredentialsInvalid, "", 1},
		"too many attempts":     {deny(protocol.NewProblem(429, token.RateLimited, ""), "17"), []option{form, body("a=b")}, 429, token.RateLimited, "17", 1},
		"no room for a session": {deny(protocol.NewProblem(503, token.StoreFull, ""), "30"), []option{json, body("{}")}, 503, token.StoreFull, "30", 1},
		"an unknown field":      {deny(protocol.NewProblem(400, token.RequestInvalid, `"x" is not a field`), ""), []option{json, body("{}")}, 400, token.RequestInvalid, "", 1},
		"another content type":  {nil, []option{header("Content-Type", "text/plain"), body("a")}, 415, token.RequestInvalid, "", 0},
		"no content type":       {nil, []option{body("a")}, 415, token.RequestInvalid, "", 0},
		"a content coding":      {nil, []option{json, header("Content-Encoding", "gzip"), body("a")}, 415, token.RequestInvalid, "", 0},
		"a body beyond 64 KiB":  {nil, []option{json, body(strings.Repeat("a", protocol.MaxLoginBody+1))}, 413, token.RequestInvalid, "", 0},
		"such a body in chunks": {nil, []option{json, body(strings.Repeat("a", protocol.MaxLoginBody+1)), func(r *http.Request) { r.ContentLength = -1 }}, 413, token.RequestInvalid, "", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := w.issuer.count(protocol.CallLogin)
			w.issuer.set(func() { w.issuer.login = tt.login })
			a := w.do("POST", "/auth/token", tt.with...)
			if a.Status != tt.status || a.reason(t) != tt.reason || a.Header.Get("Retry-After") != tt.retry {
				t.Fatalf("status %d reason %s Retry-After %q: %s", a.Status, a.reason(t), a.Header.Get("Retry-After"), a.Body)
			}
			if n := w.issuer.count(protocol.CallLogin) - before; n != tt.calls {
				t.Errorf("%d calls to the issuer", n)
			}
			if tt.reason == token.RequestInvalid && tt.calls == 1 && !strings.Contains(a.Body, "is not a field") {
				t.Errorf("the issuer's sentence is lost: %s", a.Body)
			}
		})
	}
}

func TestLogoutIsEffectiveHereAtOnce(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token()
	if a := w.do("POST", "/auth/logout", bearer(raw)); a.Status != 204 || a.Body != "" {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	if a := w.do("GET", "/x", bearer(raw)); a.reason(t) != token.SessionRevoked {
		t.Fatalf("after logout: status %d", a.Status)
	}
	if a := w.do("POST", "/auth/logout", bearer(raw)); a.Status != 204 {
		t.Errorf("logout again, as after a lost answer: status %d: %s", a.Status, a.Body)
	}
	if a := w.do("POST", "/auth/logout", bearer(w.signer.token(expired, session("other")))); a.Status != 204 {
		t.Errorf("logout with an expired token: status %d", a.Status)
	}
	w.issuer.set(func() { w.issuer.down = true })
	if a := w.do("POST", "/auth/logout", bearer(w.signer.token(session("third")))); a.Status != 503 {
		t.Errorf("logout without an issuer: status %d", a.Status)
	}
	if a := w.do("GET", "/x", bearer(w.signer.token(session("third")))); a.Status != 200 {
		t.Errorf("a logout that failed ended the session: status %d", a.Status)
	}
}

func TestExplicitRefresh(t *testing.T) {
	w := newWorld(t)
	for name, raw := range map[string]string{"valid": w.signer.token(session("a")), "expired": w.signer.token(expired, session("b"))} {
		a := w.do("POST", "/auth/refresh", bearer(raw))
		var response protocol.TokenResponse
		if err := json.Unmarshal([]byte(a.Body), &response); err != nil || a.Status != 200 || response.AccessToken == "" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: status %d: %s", name, a.Status, a.Body)
		}
	}
	if a := w.do("POST", "/auth/refresh"); a.reason(t) != token.TokenMissing {
		t.Errorf("without a token: %s", a.Body)
	}
	if a := w.do("POST", "/auth/refresh", bearer(newSigner(t).token())); a.reason(t) != token.KeyUnknown {
		t.Errorf("with another's token: %s", a.Body)
	}
}

func TestMeShowsTheVerifiedClaims(t *testing.T) {
	w := newWorld(t)
	a := w.do("GET", "/auth/me", bearer(w.signer.token()))
	var claims map[string]any
	if err := json.Unmarshal([]byte(a.Body), &claims); err != nil || claims["sub"] != "alice" || claims["role"] != "admin" || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	a = w.do("GET", "/auth/me", bearer(w.signer.token(expired)))
	if a.Status != 200 || a.Header.Get("Authorization") == "" || !strings.Contains(a.Body, `"gen":1`) {
		t.Fatalf("with an expired token: status %d: %s", a.Status, a.Body)
	}
}

func TestJWKSIsPublicAndHoldsNoPrivateKey(t *testing.T) {
	w := newWorld(t)
	a := w.do("GET", "/auth/jwks.json")
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(a.Body), &set); err != nil || len(set.Keys) != 1 || set.Keys[0]["kid"] != w.signer.key.Public().ID || set.Keys[0]["d"] != nil {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
}

func TestEndpointsOfOtherNamesAndMethods(t *testing.T) {
	w := newWorld(t)
	for target, status := range map[string]int{
		"GET /auth/token": 405, "PUT /auth/logout": 405, "POST /auth/me": 405, "DELETE /auth/jwks.json": 405, "POST /auth/tokens": 404, "GET /auth": 404,
		"GET /auth/": 404, "GET /auth/me/x": 404, "HEAD /auth/jwks.json": 200,
	} {
		method, path, _ := strings.Cut(target, " ")
		a := w.do(method, path, bearer(w.signer.token()))
		if a.Status != status {
			t.Errorf("%s: status %d, want %d", target, a.Status, status)
		}
		if status != 200 && a.Header.Get("Content-Type") != protocol.ProblemContentType {
			t.Errorf("%s: content type %q", target, a.Header.Get("Content-Type"))
		}
		if (a.Header.Get("Allow") != "") != (status == 405) {
			t.Errorf("%s: Allow %q", target, a.Header.Get("Allow"))
		}
	}
	if len(w.backend.take()) != 0 {
		t.Error("the application saw requests below the prefix")
	}
	if a := w.do("GET", "/authx", bearer(w.signer.token())); a.Status != 200 || len(w.backend.take()) != 1 {
		t.Error("a path that only begins like the prefix is not the application's")
	}
}
