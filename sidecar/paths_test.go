// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// get sends one request without the help of a URL parser.
func (w *world) get(t *testing.T, target string, headers ...string) (status, body string) {
	t.Helper()
	c := dialRaw(t, w.addr)
	c.send("GET " + target + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n")
	answer := c.readAll()
	return firstLine(answer), answer
}

func TestAmbiguousPathsAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, target := range []string{
		"//public", "/public//x", "/public/../closed", "/public/..", "/./public", "/public/%2e%2e/closed", "/public/%2E./closed",
		"/public%2fx", "/public%2Fx", "/public%5cx", `/public\..\closed`, "/..;/closed", "/public;x", "/public/%3b", "/public#x", "/public?x#y",
		"/public%00", "/public%", "/public%zz", "/public/%c0%af", "/public/%c0%ae%c0%ae/", "/public/%252e%252e/closed", "/public/\xff",
		"*", "public", "http:///public", "http://user@a/public", "ftp://a/public", "/" + strings.Repeat("a", 9000),
	} {
		status, answer := w.get(t, target)
		if status != "HTTP/1.1 400 Bad Request" || !strings.Contains(answer, `"reason":"path_ambiguous"`) {
			t.Errorf("%s: %s", target, status)
		}
		if n := len(w.backend.take()); n != 0 {
			t.Errorf("%s reached the application", target)
		}
	}
}

func TestTheCanonicalPathIsMatchedAndForwarded(t *testing.T) {
	w := newWorld(t)
	for target, want := range map[string]string{
		"/public":                 "/public",
		"/public/":                "/public/",
		"/%70ublic/a":             "/public/a",
		"/public/%7euser":         "/public/~user",
		"/public/a%20b?q=a%2fb&;": "/public/a%20b?q=a%2fb&;",
		"/public/caf%c3%a9":       "/public/caf%C3%A9",
		"/public/{id}|x":          "/public/%7Bid%7D%7Cx",
		"/public/100%25":          "/public/100%25",
		"/public/a+b%2Bc":         "/public/a+b+c",
		"/public?":                "/public?",
		"http://b/public/x?y":     "/public/x?y",
		"HTTP://b/public":         "/public",
	} {
		status, _ := w.get(t, target)
		if status != "HTTP/1.1 200 OK" {
			t.Errorf("%s: %s", target, status)
			continue
		}
		if got := w.backend.last(t); got.Target != want {
			t.Errorf("%s reached the application as %s, want %s", target, got.Target, want)
		}
	}
	for _, target := range []string{"/closed", "/%63losed", "/clos%65d/x", "http://b/closed", "/closed/"} {
		if status, _ := w.get(t, target); status != "HTTP/1.1 403 Forbidden" {
			t.Errorf("%s: %s", target, status)
		}
	}
	for _, target := range []string{"/closedx", "/publicx", "/Public"} {
		if status, answer := w.get(t, target); status != "HTTP/1.1 403 Forbidden" || !strings.Contains(answer, "token_missing") {
			t.Errorf("%s is not under a rule, but: %s", target, status)
		}
	}
}

// TestEveryByteInEveryPosition: whatever is let through without a token, the
// application reads as a path that is under the public rule; and nothing that it
// reads as the closed path gets there.
func TestEveryByteInEveryPosition(t *testing.T) {
	w := newWorld(t, func(s *settings.Settings) {
		s.Rules = append([]settings.Rule{{Paths: []settings.Path{{Type: settings.PathExact, Value: "/exact"}}, Access: settings.AccessAnonymous}}, s.Rules...)
	})
	// One connection is enough for all that is not refused.
	for c := range 256 {
		for _, format := range []string{"/%%%02x", "/%%%02xpublic", "/public%%%02x", "/public/%%%02x", "/public/%%%02x/closed", "/public%%%02x/../closed", "/%%%02x/closed", "/closed%%%02x", "/exact%%%02x", "/public/%%25%02x"} {
			target := fmt.Sprintf(format, c)
			status, _ := w.get(t, target)
			seen := w.backend.take()
			if status != "HTTP/1.1 200 OK" {
				if len(seen) != 0 {
					t.Errorf("%s was answered %s and reached the application", target, status)
				}
				continue
			}
			if len(seen) != 1 {
				t.Fatalf("%s: the application saw %d requests", target, len(seen))
			}
			decoded, err := url.PathUnescape(seen[0].Target)
			if err != nil || decoded != "/exact" && decoded != "/public" && !strings.HasPrefix(decoded, "/public/") ||
				strings.Contains(decoded, "..") || strings.ContainsAny(decoded, "\\;\x00") || strings.Contains(decoded, "//") {
				t.Errorf("%s was let through as %s", target, seen[0].Target)
			}
		}
	}
}

func TestAuditLetsThroughWithoutIdentity(t *testing.T) {
	w := newWorld(t, func(s *settings.Settings) { s.Enforcement = settings.Audit })
	for _, target := range []string{"/x", "/closed", "/a//b", "/public/../closed"} {
		status, _ := w.get(t, target, "X-User-Id: root", "X_USER_ROLE: admin")
		if status != "HTTP/1.1 200 OK" {
			t.Errorf("%s: %s", target, status)
			continue
		}
		got := w.backend.last(t)
		if got.Target != target {
			t.Errorf("%s reached the application as %s", target, got.Target)
		}
		for name := range got.Header {
			if strings.Contains(strings.ToLower(name), "user") && name != "User-Agent" {
				t.Errorf("%s: %s reached the application", target, name)
			}
		}
	}
	if !w.metric(`tokenward_sidecar_audited_denials_total{reason="path_ambiguous"} 2`) || !w.metric(`tokenward_sidecar_denials_total{reason="path_ambiguous"} 0`) {
		t.Error("not counted as audited")
	}
	if a := w.do("GET", "/x", bearer(w.signer.token())); a.Status != 200 || w.backend.last(t).Header.Get("X-User-Id") != "alice" {
		t.Error("a valid token has no identity under Audit")
	}
	if status, answer := w.get(t, "*"); status != "HTTP/1.1 400 Bad Request" || !strings.Contains(answer, string(token.PathAmbiguous)) {
		t.Errorf("a target that is no path: %s", status)
	}
	if a := w.do("GET", "/auth/me"); a.Status != 403 {
		t.Errorf("an endpoint under Audit: status %d", a.Status)
	}
}
