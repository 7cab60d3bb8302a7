// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// Whoever promises a body and sends none must not hold a connection for ever.
func TestRefusalDoesNotWaitForABodyThatNeverComes(t *testing.T) {
	w := newWorld(t)
	for name, head := range map[string]string{
		"with a length":        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
		"in chunks":            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"of no endpoint":       "POST /auth/nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
		"of a public endpoint": "GET /auth/jwks.json HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dialRaw(t, w.addr)
			c.send(head)
			answers := c.readAll() // to the end of the connection, or the test's deadline
			if n := strings.Count(answers, "HTTP/1.1 "); n != 1 {
				t.Fatalf("%d answers:\n%s", n, answers)
			}
		})
	}
}

func TestRefusalKeepsAConnectionWhoseBodyArrived(t *testing.T) {
	w := newWorld(t)
	c := dialRaw(t, w.addr)
	for range 2 {
		c.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
		res := c.response()
		if _, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 403 || res.Close {
			t.Fatalf("status %d, close %v, %v", res.StatusCode, res.Close, err)
		}
	}
}

// rawApplication answers each connection with what it is given, whatever it is sent.
func (w *world) rawApplication(answer string) {
	w.backend.handle(func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			w.t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.Close()
	})
}

// ended notes that a client's whole body was taken.
type ended struct {
	io.Reader
	seen atomic.Bool
}

func (e *ended) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil {
		e.seen.Store(true)
	}
	return n, err
}

// Clients that still send when their stream is reset lose the answer: curl does.
func TestRefusalOverHTTP2TakesTheBody(t *testing.T) {
	w := newWorld(t)
	body := &ended{Reader: strings.NewReader(strings.Repeat("x", 500_000))}
	a := w.doWith(http2Client(t), "POST", "/x", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(body), 500_000 })
	if a.Status != 403 || !body.seen.Load() {
		t.Fatalf("status %d, whole body taken: %v", a.Status, body.seen.Load())
	}
}

func TestApplicationMayAnswerBeforeItReadsTheBody(t *testing.T) {
	w := newWorld(t)
	w.rawApplication("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	for _, body := range []string{"Content-Length: 1000\r\n\r\nabc", "Content-Length: 10000000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"} {
		c := dialRaw(t, w.addr)
		c.send("POST /stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + w.signer.token() + "\r\n" + body)
		// The rest of the body never comes, and the connection ends all the same.
		if got := c.readAll(); !strings.HasPrefix(got, "HTTP/1.1 413 ") || strings.Count(got, "HTTP/1.1 ") != 1 {
			t.Errorf("%q: %q", firstLine(body), got)
		}
	}
}

// What a client sends where a body was given up is never read as a request.
func TestNothingIsReadAfterABodyThatWasGivenUp(t *testing.T) {
	w := newWorld(t)
	w.rawApplication("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	c := dialRaw(t, w.addr)
	c.send("POST /stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + w.signer.token() + "\r\nContent-Length: 1000\r\n\r\nabc")
	if res := c.response(); res.StatusCode != 413 {
		t.Fatalf("status %d", res.StatusCode)
	}
	_, _ = io.WriteString(c.Conn, "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if rest := c.readAll(); strings.Contains(rest, "HTTP/1.1") {
		t.Fatalf("after the answer came %q", rest)
	}
	if n := len(w.backend.take()); n != 1 {
		t.Fatalf("the application saw %d requests", n)
	}
}

func TestHTTP1IsStreamedBothWays(t *testing.T) {
	w := newWorld(t)
	w.backend.handle(func(rw http.ResponseWriter, r *http.Request) {
		controller := http.NewResponseController(rw)
		if err := controller.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		_ = controller.Flush()
		_, _ = io.Copy(flushing{rw, controller}, r.Body)
	})
	c := dialRaw(t, w.addr)
	c.send("POST /stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + w.signer.token() + "\r\nTransfer-Encoding: chunked\r\n\r\n")
	res := c.response()
	for _, message := range []string{"hello", "again"} {
		c.send("5\r\n" + message + "\r\n")
		got := make([]byte, 5)
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != message {
			t.Fatalf("message %q, %v", got, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
		t.Fatalf("%q, %v", rest, err)
	}
	// The connection carries the next request.
	c.send("GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
	if res := c.response(); res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
}

type flushing struct {
	io.Writer
	controller *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	_ = f.controller.Flush()
	return n, err
}

func TestAClientThatGoesAwayIsNoOutage(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.issuer.set(func() {
		w.issuer.refresh = func(string) (string, *protocol.Problem) {
			<-release
			return w.signer.token(next), nil
		}
	})
	raw := w.signer.token(expired)
	gone := dialRaw(t, w.addr)
	gone.send("GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + raw + "\r\n\r\n")
	eventually(t, "the issuer is asked", func() bool { return w.issuer.count(protocol.CallRefresh) == 1 })
	stays := dialRaw(t, w.addr)
	stays.send("GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + raw + "\r\n\r\n")
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	// A request on a third connection, begun after the close, gives the server the time
	// to notice it; the answer to the second one is what must not suffer.
	eventually(t, "the client's end is noticed", func() bool {
		w.do("GET", "/public")
		return len(w.backend.take()) > 0
	})
	close(release)
	if res := stays.response(); res.StatusCode != 200 || res.Header.Get("Authorization") == "" {
		t.Fatalf("the one who stayed: status %d", res.StatusCode)
	}
	if n := w.issuer.count(protocol.CallRefresh); n != 1 {
		t.Errorf("%d calls of the issuer", n)
	}
	if !w.metric(`tokenward_sidecar_denials_total{reason="issuer_unavailable"} 0`) || !w.metric(`tokenward_sidecar_refreshes_total{kind="expired",result="unavailable"} 0`) {
		t.Error("counted as if the issuer had failed")
	}
}

func TestAnUploadThatOutlivesItsTokenIsToldSo(t *testing.T) {
	w := newWorld(t, func(s *settings.Settings) {
		s.Refresh.OnExpired = settings.OnExpiredReject
		s.Leeway = 0
	})
	c := dialRaw(t, w.addr)
	c.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer " +
		w.signer.token(func(c *token.Claims) { c.ExpiresAt = time.Now().Add(2 * time.Second) }) + "\r\n\r\n3\r\nabc\r\n")
	if got := c.readAll(); !strings.Contains(got, `"reason":"token_expired"`) {
		t.Fatalf("answer:\n%s", got)
	}
}
