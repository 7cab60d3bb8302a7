// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/settings"
)

// TestFramingCorpus sends what request smuggling is made of, each followed by a
// pipelined request that must never be taken for one of its own. The requests that
// the application sees are the requests that were sent.
func TestFramingCorpus(t *testing.T) {
	const smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	post := func(headers, body string) string {
		return "POST /public HTTP/1.1\r\nHost: a\r\n" + headers + "\r\n" + body
	}
	corpus := map[string]string{
		"CL.TE":                                    post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+smuggled),
		"TE.CL":                                    post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "5c\r\n"+smuggled),
		"TE.TE":                                    post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"+smuggled),
		"two codings in one header":                post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"+smuggled),
		"a coding with an odd space":               post("Transfer-Encoding:\vchunked\r\n", "0\r\n\r\n"+smuggled),
		"a coding under an underscore":             post("Transfer_Encoding: chunked\r\n", "0\r\n\r\n"+smuggled),
		"a coding in HTTP/1.0":                     "POST /public HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"two lengths":                              post("Content-Length: 0\r\nContent-Length: 42\r\n", smuggled),
		"two equal lengths":                        post("Content-Length: 0\r\nContent-Length: 0\r\n", smuggled),
		"a list of lengths":                        post("Content-Length: 0, 0\r\n", smuggled),
		"a length with a sign":                     post("Content-Length: +0\r\n", smuggled),
		"a negative length":                        post("Content-Length: -1\r\n", smuggled),
		"a length in hexadecimal":                  post("Content-Length: 0x0\r\n", smuggled),
		"a length beyond all numbers":              post("Content-Length: 99999999999999999999\r\n", smuggled),
		"an empty length":                          post("Content-Length:\r\n", smuggled),
		"a folded header":                          "GET /public HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n" + smuggled,
		"a folded Authorization":                   "GET /public HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n\tabc\r\n\r\n" + smuggled,
		"a fold in the first header":               "GET /public HTTP/1.1\r\n Host: a\r\n\r\n" + smuggled,
		"space before the colon":                   "GET /public HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n" + smuggled,
		"a header without a colon":                 "GET /public HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n" + smuggled,
		"a header without a name":                  "GET /public HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n" + smuggled,
		"a name with a bracket":                    "GET /public HTTP/1.1\r\nHost: a\r\nX(A): b\r\n\r\n" + smuggled,
		"NUL in a value":                           "GET /public HTTP/1.1\r\nHost: a\r\nX-A: b\x00c\r\n\r\n" + smuggled,
		"a bare CR in a value":                     "GET /public HTTP/1.1\r\nHost: a\r\nX-A: b\rX-User-Id: root\r\n\r\n" + smuggled,
		"bare line feeds":                          "GET /public HTTP/1.1\nHost: a\n\n" + smuggled,
		"one bare line feed":                       "GET /public HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n" + smuggled,
		"no Host":                                  "GET /public HTTP/1.1\r\n\r\n" + smuggled,
		"two Hosts":                                "GET /public HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + smuggled,
		"two spaces in the request line":           "GET  /public HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
		"a tab in the request line":                "GET\t/public HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
		"a version that is none":                   "GET /public HTTP/1.1x\r\nHost: a\r\n\r\n" + smuggled,
		"a version of the future":                  "GET /public HTTP/1.2\r\nHost: a\r\n\r\n" + smuggled,
		"HTTP/0.9":                                 "GET /public\r\n\r\n" + smuggled,
		"an empty line first":                      "\r\nGET /public HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
		"a method that is none":                    "G@T /public HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
		"HTTP/2's preface, mangled":                "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + smuggled,
		"two upgrades to h2c":                      "GET /public HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + smuggled,
		"an upgrade to websocket and h2c":          "GET /public HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n" + smuggled,
		"an upgrade to anything":                   "GET /public HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n" + smuggled,
		"an upgrade with a body":                   post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", smuggled),
		"an upgrade that Connection does not name": "GET /public HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n" + smuggled,
		"CONNECT":                                  "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + smuggled,
		"a head larger than the limit":             "GET /public HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("a", 70<<10) + "\r\n\r\n" + smuggled,
	}
	for _, enforcement := range []settings.Enforcement{settings.Enforce, settings.Audit} {
		w := newWorld(t, func(s *settings.Settings) { s.Enforcement = enforcement })
		for name, message := range corpus {
			t.Run(string(enforcement)+"/"+name, func(t *testing.T) {
				c := dialRaw(t, w.addr)
				c.send(message)
				answers := c.readAll()
				if !strings.HasPrefix(answers, "HTTP/1.1 400 ") && !strings.HasPrefix(answers, "HTTP/1.1 431 ") {
					t.Fatalf("answer %q, want 400", firstLine(answers))
				}
				if n := strings.Count(answers, "HTTP/1.1 "); n != 1 {
					t.Errorf("%d answers, want one and the end of the connection", n)
				}
				if !strings.Contains(answers, `"reason":"headers_ambiguous"`) || !strings.Contains(answers, "Connection: close") {
					t.Errorf("not the refusal it should be:\n%s", answers)
				}
				if got := w.backend.take(); len(got) != 0 {
					t.Errorf("the application saw %v", got)
				}
			})
		}
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\r\n")
	return line
}

// TestBrokenChunksNeverMakeARequest: the head was forwarded before the body broke, so
// that the application may see the beginning of the request, and nothing else.
func TestBrokenChunksNeverMakeARequest(t *testing.T) {
	w := newWorld(t)
	const smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, chunks := range map[string]string{
		"a size that is none":            "xyz\r\n\r\n" + smuggled,
		"a size with a sign":             "+1\r\na\r\n0\r\n\r\n" + smuggled,
		"a size with 0x":                 "0x1\r\na\r\n0\r\n\r\n" + smuggled,
		"a size with a space before":     " 1\r\na\r\n0\r\n\r\n" + smuggled,
		"a size with a space after":      "1 \r\na\r\n0\r\n\r\n" + smuggled,
		"a size beyond all numbers":      "fffffffffffffffff\r\na\r\n0\r\n\r\n" + smuggled,
		"an empty size":                  "\r\na\r\n0\r\n\r\n" + smuggled,
		"a size line with a bare LF":     "1\na\r\n0\r\n\r\n" + smuggled,
		"an extension with a bare LF":    "1;x=\n\r\na\r\n0\r\n\r\n" + smuggled,
		"a chunk longer than its size":   "1\r\nab\r\n0\r\n\r\n" + smuggled,
		"a chunk without its end":        "1\r\na0\r\n\r\n" + smuggled,
		"a trailer that is folded":       "0\r\nX-A: b\r\n c\r\n\r\n" + smuggled,
		"a trailer with a length":        "0\r\nContent-Length: 5\r\n\r\n" + smuggled,
		"a trailer without a colon":      "0\r\nnonsense\r\n\r\n" + smuggled,
		"a trailer line with a bare LF":  "0\r\nX-A: b\n\r\n" + smuggled,
		"an extension beyond all bounds": "1;" + strings.Repeat("x", 5000) + "\r\na\r\n0\r\n\r\n" + smuggled,
		"trailers beyond all bounds":     "0\r\n" + strings.Repeat("X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 600) + "\r\n" + smuggled,
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, w.addr)
			c.send("POST /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
			answers := c.readAll()
			if !strings.HasPrefix(answers, "HTTP/1.1 400 ") || strings.Count(answers, "HTTP/1.1 ") != 1 {
				t.Errorf("answers:\n%s", answers)
			}
			for _, got := range w.backend.take() {
				if got.Target != "/public" {
					t.Errorf("the application saw %s", got.Target)
				}
			}
		})
	}
}

// TestPipelinedRequests: as many requests arrive as were sent, whole and in order,
// whatever the pieces in which they come.
func TestPipelinedRequests(t *testing.T) {
	w := newWorld(t)
	raw := w.signer.token()
	var message strings.Builder
	var want []string
	for i := range 9 {
		path := fmt.Sprintf("/public/%d", i)
		want = append(want, path)
		switch i % 3 {
		case 0:
			fmt.Fprintf(&message, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
		case 1:
			fmt.Fprintf(&message, "POST %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 4\r\n\r\nGET ", path, raw)
		case 2:
			fmt.Fprintf(&message, "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n", path)
		}
	}
	message.WriteString("GET /public/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	want = append(want, "/public/last")
	for _, size := range []int{1, 7, 64, 1 << 20} {
		c := dialRaw(t, w.addr)
		go func() {
			rest := message.String()
			for len(rest) > 0 {
				n := min(size, len(rest))
				if _, err := c.Write([]byte(rest[:n])); err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		if n := strings.Count(c.readAll(), "HTTP/1.1 200 OK"); n != len(want) {
			t.Errorf("pieces of %d: %d answers, want %d", size, n, len(want))
		}
		var got []string
		for _, r := range w.backend.take() {
			got = append(got, r.Target)
			if r.Method == http.MethodPost && r.Body != "GET " && r.Body != "abc0123456789" {
				t.Errorf("pieces of %d: body %q", size, r.Body)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("pieces of %d: the application saw %v", size, got)
		}
	}
}

// TestRefusalComesAfterTheAnswersBeforeIt: a good request and a bad one, sent together.
func TestRefusalComesAfterTheAnswersBeforeIt(t *testing.T) {
	w := newWorld(t)
	entered, release := make(chan struct{}), make(chan struct{})
	w.backend.handle(func(rw http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = rw.Write([]byte("first"))
	})
	c := dialRaw(t, w.addr)
	c.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\nGET /public HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n")
	<-entered
	close(release)
	first, err := http.ReadResponse(c.r, nil)
	if err != nil || first.StatusCode != 200 {
		t.Fatalf("first answer %v %v", first, err)
	}
	defer func() { _ = first.Body.Close() }()
	if line, _ := bufio.NewReader(first.Body).ReadString(0); line != "first" {
		t.Fatalf("first body %q", line)
	}
	if second := c.response(); second.StatusCode != 400 {
		t.Fatalf("second status %d", second.StatusCode)
	}
	if n := len(w.backend.take()); n != 1 {
		t.Fatalf("the application saw %d requests", n)
	}
}

// TestUpgradeToHTTP2IsPassedOver: Java's HttpClient offers it with each request to an
// http URI. What follows is HTTP/1.1, whoever hopes for more.
func TestUpgradeToHTTP2IsPassedOver(t *testing.T) {
	w := newWorld(t)
	const offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
	c := dialRaw(t, w.addr)
	c.send("POST /public HTTP/1.1\r\nHost: a\r\n" + offer + "Content-Length: 3\r\n\r\nabc" + "GET /x HTTP/1.1\r\nHost: a\r\n" + offer + "\r\n")
	for _, want := range []int{200, 403} {
		res := c.response()
		if _, err := io.ReadAll(res.Body); err != nil || res.StatusCode != want {
			t.Fatalf("status %d, want %d, %v", res.StatusCode, want, err)
		}
	}
	got := w.backend.last(t)
	if got.Body != "abc" || got.Header["Upgrade"] != nil || got.Header["Http2-Settings"] != nil || got.Header["Connection"] != nil {
		t.Fatalf("the application saw %+v", got)
	}
	c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if rest := c.readAll(); !strings.HasPrefix(rest, "HTTP/1.1 400 ") {
		t.Fatalf("HTTP/2 in the middle: %q", rest)
	}
}

func TestRefusalOfALaterRequestComesAtOnce(t *testing.T) {
	w := newWorld(t)
	c := dialRaw(t, w.addr)
	c.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
	if res := c.response(); res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
	c.send("GET /public HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n") // and no byte more
	if rest := c.readAll(); !strings.HasPrefix(rest, "HTTP/1.1 400 ") {
		t.Fatalf("answer %q", rest)
	}
}
