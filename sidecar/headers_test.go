// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// cgi is how a gateway interface shows headers to an application.
func cgi(h http.Header) map[string]string {
	out := map[string]string{}
	for name, values := range h {
		out["HTTP_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = strings.Join(values, ",")
	}
	return out
}

func TestClientsCannotSetIdentityHeaders(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token(func(c *token.Claims) { c.Extra = nil }) // has no role
	for _, name := range []string{"X-User-Id", "x-user-id", "X_User_Id", "X-USER_ID", "X-User-Role", "x_user_role", "X.User.Role", "X-User-Role\r\nConnection: X-User-Id", "X-User-Role\r\nConnection: authorization, x-user-id"} {
		parts := strings.SplitN(name, "\r\n", 2)
		extra := ""
		if len(parts) == 2 {
			extra = parts[1] + "\r\n"
		}
		for _, path := range []string{"/x", "/public"} {
			c := dialRaw(t, w.addr)
			c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + raw + "\r\n" + parts[0] + ": root\r\n" + extra + "Connection: close\r\n\r\n")
			if answer := c.readAll(); !strings.HasPrefix(answer, "HTTP/1.1 200") {
				t.Fatalf("%q on %s: %s", name, path, firstLine(answer))
			}
			got := w.backend.last(t)
			seen := cgi(got.Header)
			want := ""
			if path == "/x" {
				want = "alice"
			}
			if seen["HTTP_X_USER_ID"] != want || seen["HTTP_X_USER_ROLE"] != "" {
				t.Errorf("%q on %s: the application sees %v", name, path, got.Header)
			}
			if path == "/x" && got.Header.Get("Authorization") != "Bearer "+raw {
				t.Errorf("%q removed Authorization", name)
			}
			for header, values := range got.Header {
				if strings.Contains(strings.Join(values, ""), "root") {
					t.Errorf("%q on %s got through as %s", name, path, header)
				}
			}
		}
	}
}

func TestTrailersCannotSetIdentityHeaders(t *testing.T) {
	w := newWorld(t)
	var trailer http.Header
	w.backend.handle(func(_ http.ResponseWriter, r *http.Request) { trailer = r.Trailer })
	c := dialRaw(t, w.addr)
	c.send("POST /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + w.signer.token() + "\r\nTrailer: X-User-Id\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\nX-User-Id: root\r\n\r\n")
	if answer := c.readAll(); !strings.HasPrefix(answer, "HTTP/1.1 200") {
		t.Fatal(answer)
	}
	if got := w.backend.last(t); len(trailer) != 0 || got.Header.Get("X-User-Id") != "alice" || got.Body != "a" {
		t.Fatalf("trailer %v, header %v", trailer, got.Header)
	}
}

func TestHeadersThatFoldToFramingAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"Content_Length", "Transfer_Encoding", "TRANSFER_ENCODING", "Proxy_Connection", "HTTP2_Settings"} {
		if status, answer := w.get(t, "/public", name+": 1"); status != "HTTP/1.1 400 Bad Request" || !strings.Contains(answer, "headers_ambiguous") {
			t.Errorf("%s: %s", name, status)
		}
	}
	if n := len(w.backend.take()); n != 0 {
		t.Errorf("the application saw %d requests", n)
	}
}

func TestAuthorizationRemove(t *testing.T) {
	w := newWorld(t, func(s *settings.Settings) { s.Upstream.Authorization = settings.AuthorizationRemove })
	for _, path := range []string{"/x", "/public"} {
		if a := w.do("GET", path, bearer(w.signer.token())); a.Status != 200 {
			t.Fatalf("status %d", a.Status)
		}
		if got := w.backend.last(t); got.Header.Get("Authorization") != "" {
			t.Errorf("%s: the application sees Authorization", path)
		}
	}
}

func TestForwardingHeadersAreKeptAndExtended(t *testing.T) {
	w := newWorld(t)
	w.do("GET", "/public", header("X-Forwarded-For", "192.0.2.1"), header("X-Forwarded-Proto", "https"), header("X-Forwarded-Host", "shop.example.com"))
	got := w.backend.last(t)
	if f := got.Header.Get("X-Forwarded-For"); f != "192.0.2.1, 127.0.0.1" {
		t.Errorf("X-Forwarded-For %q", f)
	}
	if got.Header.Get("X-Forwarded-Proto") != "https" || got.Header.Get("X-Forwarded-Host") != "shop.example.com" {
		t.Errorf("what the ingress said is lost: %v", got.Header)
	}
	if got.Host != w.addr {
		t.Errorf("Host %q, want %q", got.Host, w.addr)
	}
}

func TestBrowsersCanReadDenials(t *testing.T) {
	w := newWorld(t)
	a := w.do("GET", "/x", header("Origin", "https://web.example"))
	if a.Header.Get("Access-Control-Allow-Origin") != "https://web.example" || !strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), "WWW-Authenticate") || !strings.Contains(strings.Join(a.Header["Vary"], ","), "Origin") {
		t.Fatalf("headers %v", a.Header)
	}
	if a := w.do("GET", "/x", header("Origin", "https://a, https://b")); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("an origin that is none was repeated")
	}
}

func TestPreflight(t *testing.T) {
	w := newWorld(t)
	origin, method := header("Origin", "https://web.example"), header("Access-Control-Request-Method", "POST")
	if a := w.do("OPTIONS", "/x", origin, method); a.Status != 200 || len(w.backend.take()) != 1 {
		t.Errorf("a true preflight: status %d", a.Status)
	}
	for name, with := range map[string][]option{"without Origin": {method}, "without the method": {origin}} {
		if a := w.do("OPTIONS", "/x", with...); a.Status != 403 || len(w.backend.take()) != 0 {
			t.Errorf("OPTIONS %s: status %d", name, a.Status)
		}
	}
	if a := w.do("GET", "/x", origin, method); a.Status != 403 {
		t.Errorf("GET that looks like a preflight: status %d", a.Status)
	}
	if a := w.do("OPTIONS", "/closed", origin, method); a.Status != 403 {
		t.Errorf("a preflight of a denied path: status %d", a.Status)
	}
	a := w.do("OPTIONS", "/auth/token", origin, method)
	if a.Status != 204 || a.Header.Get("Access-Control-Allow-Methods") != "POST" || a.Header.Get("Access-Control-Allow-Origin") != "https://web.example" || len(w.backend.take()) != 0 {
		t.Errorf("a preflight of our own endpoint: status %d, %v", a.Status, a.Header)
	}
}
