// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

func TestVerifiedRequestReachesTheApplicationWithIdentity(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token()
	for _, round := range []string{"first seen", "remembered"} {
		if a := w.do("POST", "/orders?x=%zz;1", bearer(raw), body("hello")); a.Status != 200 {
			t.Fatalf("%s: status %d: %s", round, a.Status, a.Body)
		}
		got := w.backend.last(t)
		if got.Target != "/orders?x=%zz;1" || got.Body != "hello" || got.Method != "POST" {
			t.Errorf("%s: the application saw %s %s %q", round, got.Method, got.Target, got.Body)
		}
		if id, role := got.Header.Get("X-User-Id"), got.Header.Get("X-User-Role"); id != "alice" || role != "admin" {
			t.Errorf("%s: identity headers %q and %q", round, id, role)
		}
		if got.Header.Get("Authorization") != "Bearer "+raw {
			t.Errorf("%s: the token was not forwarded", round)
		}
	}
}

func TestDenials(t *testing.T) {
	w := newWorld(t)
	stranger := newSigner(t)
	tests := map[string]struct {
		path   string
		with   []option
		status int
		reason token.Reason
	}{
		"no token":                                   {"/x", nil, 403, token.TokenMissing},
		"another scheme":                             {"/x", []option{header("Authorization", "Basic YTpi")}, 403, token.TokenMissing},
		"a token in the query":                       {"/x?access_token=" + w.signer.token(), nil, 403, token.TokenMissing},
		"a token that is none":                       {"/x", []option{bearer("abc")}, 403, token.TokenMalformed},
		"an empty token":                             {"/x", []option{header("Authorization", "Bearer ")}, 403, token.TokenMissing},
		"a token with another's key":                 {"/x", []option{bearer(stranger.token())}, 403, token.KeyUnknown},
		"a foreign audience":                         {"/x", []option{bearer(w.signer.token(func(c *token.Claims) { c.Audience = []string{"other"} }))}, 403, token.AudienceMismatch},
		"a foreign issuer":                           {"/x", []option{bearer(w.signer.token(func(c *token.Claims) { c.Issuer = "https://other" }))}, 403, token.IssuerNotTrusted},
		"expired and of a foreign audience":          {"/x", []option{bearer(w.signer.token(expired, func(c *token.Claims) { c.Audience = []string{"other"} }))}, 403, token.AudienceMismatch},
		"a rule denies":                              {"/closed/x", []option{bearer(w.signer.token())}, 403, token.RuleDenied},
		"a claim is asked for":                       {"/admin", []option{bearer(w.signer.token(func(c *token.Claims) { c.Extra = nil }))}, 403, token.ClaimMismatch},
		"two Authorization headers":                  {"/x", []option{bearer(w.signer.token()), header("Authorization", "Bearer x")}, 400, token.HeadersAmbiguous},
		"two credentials in one":                     {"/x", []option{header("Authorization", "Basic x, Bearer "+w.signer.token())}, 400, token.HeadersAmbiguous},
		"two Authorization headers on a public path": {"/public", []option{header("Authorization", "a"), header("Authorization", "b")}, 400, token.HeadersAmbiguous},
		"a claim that breaks a header":               {"/x", []option{bearer(w.signer.token(func(c *token.Claims) { c.Subject = "a\r\nX-Admin: 1" }))}, 403, token.ClaimMismatch},
		"a claim with space at its end":              {"/x", []option{bearer(w.signer.token(func(c *token.Claims) { c.Subject = "alice " }))}, 403, token.ClaimMismatch},
		"a list member with a comma":                 {"/x", []option{bearer(w.signer.token(func(c *token.Claims) { c.Extra = map[string]any{"role": []any{"a,admin", "b"}} }))}, 403, token.ClaimMismatch},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := w.do("GET", tt.path, tt.with...)
			if a.Status != tt.status || a.reason(t) != tt.reason {
				t.Fatalf("status %d reason %s, want %d %s", a.Status, a.reason(t), tt.status, tt.reason)
			}
			if n := len(w.backend.take()); n != 0 {
				t.Fatalf("the application saw %d requests", n)
			}
			if challenge := a.Header.Get("WWW-Authenticate"); !strings.Contains(challenge, `reason="`+string(tt.reason)+`"`) || !strings.HasPrefix(challenge, `Bearer realm="shop/shop"`) {
				t.Errorf("WWW-Authenticate is %q", challenge)
			}
			if a.Header.Get("Cache-Control") != "no-store" {
				t.Error("the denial may be cached")
			}
			if !strings.Contains(w.logs.String(), `"reason":"`+string(tt.reason)+`"`) {
				t.Error("no log line has the reason")
			}
			if w.metric(fmt.Sprintf("tokenward_sidecar_denials_total{reason=%q} 0", tt.reason)) {
				t.Error("the denial was not counted")
			}
		})
	}
}

func TestDenialStatusIsThePolicysForFailedAuthenticationOnly(t *testing.T) {
	w := newWorld(t, func(s *settings.Settings) { s.Denial.StatusCode = 401 })
	for path, want := range map[string]int{"/x": 401, "/closed": 403, "/x//y": 400} {
		if a := w.do("GET", path); a.Status != want {
			t.Errorf("%s: status %d, want %d", path, a.Status, want)
		}
	}
}

func TestExpiredTokenIsRefreshedOnTheWay(t *testing.T) {
	w := newWorld(t)
	fresh := w.signer.token(next)
	w.issuer.set(func() { w.issuer.refresh = func(string) (string, *protocol.Problem) { return fresh, nil } })
	w.backend.handle(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Authorization", "Bearer forged-by-the-application")
		rw.Header().Set("Cache-Control", "public, max-age=600")
		rw.Header().Set("CDN-Cache-Control", "max-age=600")
		rw.Header().Set("X-Accel-Expires", "600")
		rw.Header().Set("Vary", "Accept")
		rw.Header().Set("Access-Control-Expose-Headers", "X-Total")
	})
	a := w.do("GET", "/orders", bearer(w.signer.token(expired)), header("Origin", "https://web.example"))
	if a.Status != 200 || a.Header.Get("Authorization") != "Bearer "+fresh || len(a.Header["Authorization"]) != 1 {
		t.Fatalf("status %d, Authorization %q", a.Status, a.Header["Authorization"])
	}
	if got := w.backend.last(t); got.Header.Get("Authorization") != "Bearer "+fresh || got.Header.Get("X-User-Id") != "alice" {
		t.Errorf("the application did not see the new token: %v", got.Header)
	}
	if cc := a.Header["Cache-Control"]; len(cc) != 1 || cc[0] != "no-store" {
		t.Errorf("Cache-Control %q", cc)
	}
	if a.Header.Get("CDN-Cache-Control") != "" || a.Header.Get("X-Accel-Expires") != "" {
		t.Error("a header that overrides Cache-Control is left")
	}
	if vary := strings.Join(a.Header["Vary"], ","); !strings.Contains(vary, "Authorization") || !strings.Contains(vary, "Accept") {
		t.Errorf("Vary %q", vary)
	}
	if expose := strings.Join(a.Header["Access-Control-Expose-Headers"], ","); !strings.Contains(expose, "Authorization") || !strings.Contains(expose, "X-Total") {
		t.Errorf("Access-Control-Expose-Headers %q", expose)
	}
	if !w.metric(`tokenward_sidecar_refreshes_total{kind="expired",result="ok"} 1`) {
		t.Error("the refresh was not counted")
	}
}

func TestTheApplicationsCopyOfTheTokenHeaderIsStrippedEverywhere(t *testing.T) {
	w := newWorld(t, func(s *settings.Settings) { s.Refresh.ResponseHeader = "X-New-Token" })
	w.backend.handle(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Link", "</style.css>; rel=preload")
		rw.Header()["x_new_token"] = []string{"hint"}
		rw.WriteHeader(http.StatusEarlyHints)
		delete(rw.Header(), "x_new_token")
		rw.Header().Set("Trailer", "X-New-Token, X-Sum")
		rw.Header().Set("X_New_Token", "head")
		_, _ = rw.Write([]byte("body"))
		rw.Header().Set("X-New-Token", "announced")
		rw.Header().Set("X-Sum", "1")
		rw.Header().Set(http.TrailerPrefix+"x-new_token", "unannounced")
	})
	raw := dialRaw(t, w.addr)
	raw.send("GET /public HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	got := raw.readAll()
	if !strings.Contains(got, "103 Early Hints") || !strings.Contains(got, "body") || !strings.Contains(got, "X-Sum: 1") {
		t.Fatalf("not the answer that was made:\n%s", got)
	}
	if lower := strings.ToLower(strings.ReplaceAll(got, "_", "-")); strings.Contains(lower, "x-new-token") {
		t.Fatalf("the application's copy got through:\n%s", got)
	}
}

func TestConcurrentRequestsWithOneExpiredTokenMakeOneCall(t *testing.T) {
	w := newWorld(t)
	fresh := w.signer.token(next)
	release := make(chan struct{})
	w.issuer.set(func() {
		w.issuer.refresh = func(string) (string, *protocol.Problem) {
			<-release
			return fresh, nil
		}
	})
	raw := w.signer.token(expired)
	var ok atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if a := w.do("GET", "/x", bearer(raw)); a.Status == 200 && a.Header.Get("Authorization") == "Bearer "+fresh {
				ok.Add(1)
			}
		})
	}
	eventually(t, "the issuer is asked", func() bool { return w.issuer.count(protocol.CallRefresh) > 0 })
	close(release)
	wg.Wait()
	if ok.Load() != 100 || w.issuer.count(protocol.CallRefresh) != 1 {
		t.Fatalf("%d of 100 got the new token, with %d calls to the issuer", ok.Load(), w.issuer.count(protocol.CallRefresh))
	}
}

func TestExpiredTokenOutcomes(t *testing.T) {
	deny := func(status int, reason token.Reason) func(string) (string, *protocol.Problem) {
		p := protocol.NewProblem(status, reason, "")
		return func(string) (string, *protocol.Problem) { return "", &p }
	}
	w := newWorld(t)
	tests := map[string]struct {
		refresh func(string) (string, *protocol.Problem)
		status  int
		reason  token.Reason
	}{
		"the issuer says the session is over":             {deny(403, token.SessionExpired), 403, token.SessionExpired},
		"the issuer says the token was reused":            {deny(403, token.TokenReused), 403, token.TokenReused},
		"the issuer says the user is gone":                {deny(403, token.UserDisabled), 403, token.UserDisabled},
		"the issuer does not accept this pod":             {deny(401, token.IssuerUnavailable), 503, token.IssuerUnavailable},
		"the issuer does not understand us":               {deny(400, token.RequestInvalid), 503, token.IssuerUnavailable},
		"the issuer says what nobody knows":               {deny(403, "made_up"), 503, token.IssuerUnavailable},
		"the new token has a foreign signature":           {func(string) (string, *protocol.Problem) { return newSigner(t).token(next), nil }, 503, token.IssuerUnavailable},
		"the new token is none":                           {func(string) (string, *protocol.Problem) { return "nonsense", nil }, 503, token.IssuerUnavailable},
		"the new token has expired, too, again and again": {func(string) (string, *protocol.Problem) { return w.signer.token(next, expired), nil }, 503, token.IssuerUnavailable},
	}
	n := 0
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n++
			w.issuer.set(func() { w.issuer.refresh = tt.refresh })
			a := w.do("GET", "/x", bearer(w.signer.token(expired, session(fmt.Sprint("outcome-", n)))))
			if a.Status != tt.status || a.reason(t) != tt.reason {
				t.Fatalf("status %d reason %s, want %d %s", a.Status, a.reason(t), tt.status, tt.reason)
			}
			if (a.Header.Get("Retry-After") != "") != (tt.status == 503) {
				t.Errorf("Retry-After %q with status %d", a.Header.Get("Retry-After"), a.Status)
			}
			if len(w.backend.take()) != 0 {
				t.Error("the application saw the request")
			}
		})
	}
}

func TestReplayedTokenThatHasExpiredIsRefreshedOnceMore(t *testing.T) {
	w := newWorld(t)
	replayed, fresh := w.signer.token(expired, next), w.signer.token(func(c *token.Claims) { c.Generation, c.ID = 2, "jti-2" })
	w.issuer.set(func() {
		w.issuer.refresh = func(raw string) (string, *protocol.Problem) {
			if raw == replayed {
				return fresh, nil
			}
			return replayed, nil
		}
	})
	if a := w.do("GET", "/x", bearer(w.signer.token(expired))); a.Status != 200 || a.Header.Get("Authorization") != "Bearer "+fresh {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
}

func TestIssuerDownNeverLogsOut(t *testing.T) {
	w := newWorld(t)
	w.issuer.set(func() { w.issuer.down = true })
	if a := w.do("GET", "/x", bearer(w.signer.token())); a.Status != 200 {
		t.Errorf("a valid token: status %d", a.Status)
	}
	if a := w.do("GET", "/x", bearer(w.signer.token(expired))); a.Status != 503 || a.reason(t) != token.IssuerUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("an expired token: status %d", a.Status)
	}
	// It was tried over other connections as well, any of which could have led to an issuer
	// that is able; see issuerclient.TestAnIssuerThatIsUnableIsLeftForOneThatIsAble.
	tried := w.issuer.count(protocol.CallRefresh)
	if tried < 1 || tried > 4 {
		t.Errorf("%d refreshes were tried for the expired token, want 4 at most", tried)
	}
	if a := w.do("GET", "/x", bearer(newSigner(t).token())); a.Status != 503 {
		t.Errorf("a key that only the issuer could know: status %d", a.Status)
	}
	for range 5 {
		if a := w.do("GET", "/x", bearer(w.signer.token(expiresSoon, session("soon")))); a.Status != 200 || a.Header.Get("Authorization") != "" {
			t.Errorf("a token about to expire: status %d", a.Status)
		}
	}
	if n := w.issuer.count(protocol.CallRefresh); n != tried+1 {
		t.Errorf("%d refreshes were tried early, want 1", n-tried)
	}
}

func TestEarlyRefresh(t *testing.T) {
	w := newWorld(t)
	a := w.do("GET", "/x", bearer(w.signer.token(expiresSoon)))
	got := w.backend.last(t)
	if a.Status != 200 || a.Header.Get("Authorization") == "" || got.Header.Get("Authorization") != a.Header.Get("Authorization") {
		t.Fatalf("status %d, returned %q, forwarded %q", a.Status, a.Header.Get("Authorization"), got.Header.Get("Authorization"))
	}
	p := protocol.NewProblem(403, token.SessionRevoked, "")
	w.issuer.set(func() { w.issuer.refresh = func(string) (string, *protocol.Problem) { return "", &p } })
	if a := w.do("GET", "/x", bearer(w.signer.token(expiresSoon, session("other")))); a.Status != 200 {
		t.Fatalf("an early refresh that the issuer refuses failed a valid request: %d", a.Status)
	}
}

func TestRejectNeverRefreshes(t *testing.T) {
	w := newWorld(t, func(s *settings.Settings) { s.Refresh.OnExpired = settings.OnExpiredReject })
	if a := w.do("GET", "/x", bearer(w.signer.token(expired))); a.Status != 403 || a.reason(t) != token.TokenExpired {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	if a := w.do("GET", "/x", bearer(w.signer.token(expiresSoon))); a.Status != 200 || a.Header.Get("Authorization") != "" {
		t.Fatalf("status %d", a.Status)
	}
	if n := w.issuer.count(protocol.CallRefresh); n != 0 {
		t.Fatalf("the issuer was asked %d times", n)
	}
}

func TestTheNewTokenIsReturnedEvenWhenARuleRefusesIt(t *testing.T) {
	w := newWorld(t)
	fresh := w.signer.token(next, func(c *token.Claims) { c.Extra = nil })
	w.issuer.set(func() { w.issuer.refresh = func(string) (string, *protocol.Problem) { return fresh, nil } })
	a := w.do("GET", "/admin", bearer(w.signer.token(expired)))
	if a.Status != 403 || a.reason(t) != token.ClaimMismatch || a.Header.Get("Authorization") != "Bearer "+fresh || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("status %d, Authorization %q", a.Status, a.Header.Get("Authorization"))
	}
}

func TestRevocationReachesRememberedTokens(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token()
	if a := w.do("GET", "/x", bearer(raw)); a.Status != 200 {
		t.Fatal("not valid to begin with")
	}
	w.issuer.revoke("session-1")
	eventually(t, "the revoked session is refused", func() bool {
		a := w.do("GET", "/x", bearer(raw))
		return a.Status == 403 && a.reason(t) == token.SessionRevoked
	})
	if a := w.do("GET", "/x", bearer(w.signer.token(expired))); a.reason(t) != token.SessionRevoked || w.issuer.count(protocol.CallRefresh) != 0 {
		t.Error("an expired token of a revoked session was taken to the issuer")
	}
}

func TestUnknownKeyIsFetchedOnceAndUsed(t *testing.T) {
	w := newWorld(t)
	rotated := newSigner(t)
	w.issuer.set(func() { w.issuer.keys = w.signer.keys(2, rotated) })
	if a := w.do("GET", "/x", bearer(rotated.token())); a.Status != 200 {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	// The file is late: it must not take the newer keys away.
	w.publish(w.settings(func(s *settings.Settings) { s.Policy.Generation = 2 }))
	eventually(t, "the new settings are in force", func() bool { return w.metric("tokenward_sidecar_policy_generation 2") })
	if a := w.do("GET", "/x", bearer(rotated.token())); a.Status != 200 {
		t.Fatalf("after a late file: status %d", a.Status)
	}
	if n := w.issuer.count(protocol.CallKeys); n != 1 {
		t.Fatalf("keys were fetched %d times", n)
	}
}

func TestMadeUpKeyIDsDoNotFloodTheIssuer(t *testing.T) {
	w := newWorld(t)
	began := time.Now()
	raws := make([]string, 20)
	for i := range raws {
		raws[i] = newSigner(t).token()
	}
	var wg sync.WaitGroup
	for _, raw := range raws {
		wg.Go(func() {
			for range 3 {
				if a := w.do("GET", "/x", bearer(raw)); a.reason(t) != token.KeyUnknown {
					t.Errorf("reason %s", a.reason(t))
				}
			}
		})
	}
	wg.Wait()
	if n, most := w.issuer.count(protocol.CallKeys), 2+int(time.Since(began)/time.Second); n > most {
		t.Fatalf("keys were fetched %d times in %s", n, time.Since(began))
	}
}
