// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// echoWebSocket switches and then sends back what it gets. accept is called first.
func echoWebSocket(t *testing.T, accept func()) http.HandlerFunc {
	t.Helper()
	return func(rw http.ResponseWriter, r *http.Request) {
		accept()
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\nAuthorization: Bearer app\r\n\r\n")
		_, _ = io.Copy(conn, buf)
	}
}

const webSocketHead = "Host: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

func TestWebSocket(t *testing.T) {
	w := newWorld(t)
	w.backend.handle(echoWebSocket(t, func() {}))
	c := dialRaw(t, w.addr)
	c.send("GET /stream HTTP/1.1\r\n" + webSocketHead + "Authorization: Bearer " + w.signer.token(expired) + "\r\n\r\n")
	res := c.response()
	if res.StatusCode != 101 || len(res.Header["Authorization"]) != 1 || !strings.HasPrefix(res.Header.Get("Authorization"), "Bearer ey") || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("status %d, %v", res.StatusCode, res.Header)
	}
	c.echo("ping\r\n\r\n\x00\xff raw bytes that are no HTTP")
	eventually(t, "the stream is counted", func() bool { return w.metric("tokenward_sidecar_streams 1") })
	w.issuer.revoke("session-1")
	if rest := c.readAll(); rest != "" {
		t.Fatalf("after the revocation came %q", rest)
	}
	eventually(t, "the stream is gone", func() bool {
		return w.metric("tokenward_sidecar_streams 0") && w.metric("tokenward_sidecar_streams_ended_total 1")
	})
}

func (c *rawConn) echo(s string) {
	c.t.Helper()
	c.send(s)
	got := make([]byte, len(s))
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != s {
		c.t.Fatalf("echo %q, %v", got, err)
	}
}

func TestBytesBefore101AreHeldBack(t *testing.T) {
	w := newWorld(t)
	entered, release := make(chan struct{}), make(chan struct{})
	early := make(chan string, 1)
	w.backend.handle(func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		close(entered)
		<-release
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		data, _ := io.ReadAll(conn)
		early <- string(data)
		_ = conn.SetReadDeadline(time.Time{})
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, conn)
	})
	c := dialRaw(t, w.addr)
	const smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	c.send("GET /stream HTTP/1.1\r\n" + webSocketHead + "Authorization: Bearer " + w.signer.token() + "\r\n\r\n" + smuggled)
	<-entered
	close(release)
	if got := <-early; got != "" {
		t.Fatalf("the application got %q before it switched", got)
	}
	if res := c.response(); res.StatusCode != 101 {
		t.Fatalf("status %d", res.StatusCode)
	}
	got := make([]byte, len(smuggled))
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != smuggled {
		t.Fatalf("what was sent early is lost: %q, %v", got, err)
	}
	if n := len(w.backend.take()); n != 1 {
		t.Fatalf("the application saw %d requests", n)
	}
}

func TestAnUpgradeThatDoesNotHappenEndsTheConnection(t *testing.T) {
	w := newWorld(t)
	c := dialRaw(t, w.addr)
	c.send("GET /public HTTP/1.1\r\n" + webSocketHead + "\r\nGET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	answers := c.readAll()
	if !strings.HasPrefix(answers, "HTTP/1.1 200") || strings.Count(answers, "HTTP/1.1 ") != 1 {
		t.Fatalf("answers:\n%s", answers)
	}
	if n := len(w.backend.take()); n != 1 {
		t.Fatalf("the application saw %d requests", n)
	}
}

func TestWebSocketNeedsAToken(t *testing.T) {
	w := newWorld(t)
	c := dialRaw(t, w.addr)
	c.send("GET /stream HTTP/1.1\r\n" + webSocketHead + "\r\n")
	if res := c.response(); res.StatusCode != 403 {
		t.Fatalf("status %d", res.StatusCode)
	}
	if n := len(w.backend.take()); n != 0 {
		t.Fatalf("the application saw %d requests", n)
	}
}

func TestServerSentEventsAreFlushedAndEndWithTheSession(t *testing.T) {
	w := newWorld(t)
	events := make(chan string)
	w.backend.handle(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(rw).Flush()
		for {
			select {
			case e := <-events:
				_, _ = io.WriteString(rw, "data: "+e+"\n\n")
				_ = http.NewResponseController(rw).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	open := func(path string, with ...option) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range with {
			f(req)
		}
		res, err := w.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	res := open("/stream", bearer(w.signer.token()))
	lines := bufio.NewReader(res.Body)
	for _, want := range []string{"one", "two"} {
		events <- want
		if line, err := lines.ReadString('\n'); err != nil || line != "data: "+want+"\n" {
			t.Fatalf("event %q, %v", line, err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	w.issuer.revoke("session-1")
	if _, err := io.ReadAll(lines); err == nil {
		t.Fatal("the stream ended as if it were complete")
	}
}

func TestStreamsEndWithTheirTokenUnderReject(t *testing.T) {
	w := newWorld(t, func(s *settings.Settings) {
		s.Refresh.OnExpired = settings.OnExpiredReject
		s.Leeway = settings.Duration(time.Second)
	})
	w.backend.handle(echoWebSocket(t, func() {}))
	c := dialRaw(t, w.addr)
	began := time.Now()
	c.send("GET /stream HTTP/1.1\r\n" + webSocketHead + "Authorization: Bearer " + w.signer.token(func(c *token.Claims) { c.ExpiresAt = time.Now().Add(2 * time.Second) }) + "\r\n\r\n")
	if res := c.response(); res.StatusCode != 101 {
		t.Fatalf("status %d", res.StatusCode)
	}
	c.echo("still here")
	if rest := c.readAll(); rest != "" || time.Since(began) < time.Second {
		t.Fatalf("ended after %s with %q", time.Since(began), rest)
	}
}

// http2Client speaks HTTP/2 with prior knowledge.
func http2Client(t *testing.T) *http.Client {
	t.Helper()
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestGRPCOverHTTP2IsStreamedBothWays(t *testing.T) {
	w := newWorld(t)
	w.backend.handle(func(rw http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("the application saw HTTP/%d with TE %q", r.ProtoMajor, r.Header.Get("Te"))
		}
		rw.Header().Set("Content-Type", "application/grpc")
		rw.Header().Set("Trailer", "Grpc-Status")
		_ = http.NewResponseController(rw).Flush()
		buf := make([]byte, 64)
		for {
			n, err := r.Body.Read(buf)
			_, _ = rw.Write(buf[:n])
			_ = http.NewResponseController(rw).Flush()
			if err != nil {
				break
			}
		}
		rw.Header().Set("Grpc-Status", "0")
		rw.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	})
	client := http2Client(t)
	reader, writer := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/stream/Method", reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Authorization": {"Bearer " + w.signer.token()}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for _, message := range []string{"hello", "again"} {
		if _, err := io.WriteString(writer, message); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(message))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != message {
			t.Fatalf("message %q, %v", got, err)
		}
	}
	_ = writer.Close()
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "fine" {
		t.Fatalf("trailers %v", res.Trailer)
	}
}

func TestGRPCDenialIsAGRPCStatus(t *testing.T) {
	w := newWorld(t)
	client := http2Client(t)
	for path, want := range map[string][2]string{"/pkg.Service/Method": {"16", "token_missing"}, "/closed": {"7", "rule_denied"}} {
		a := w.doWith(client, "POST", path, header("Content-Type", "application/grpc+proto"))
		if a.Status != 200 || a.Header.Get("Grpc-Status") != want[0] || a.Header.Get("Grpc-Message") != want[1] || a.Header.Get("Content-Type") != "application/grpc" {
			t.Errorf("%s: status %d, %v", path, a.Status, a.Header)
		}
	}
	// What browsers speak is read like any other answer.
	if a := w.doWith(client, "POST", "/pkg.Service/Method", header("Content-Type", "application/grpc-web+proto"), header("Origin", "https://a.example")); a.Status != 403 || a.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("grpc-web: status %d, %v", a.Status, a.Header)
	}
}

func TestHTTP2HasTheSameRules(t *testing.T) {
	w := newWorld(t)
	client := http2Client(t)
	if a := w.doWith(client, "GET", "/x", bearer(w.signer.token()), header("X_User_Id", "root")); a.Status != 200 {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	if got := w.backend.last(t); got.Proto != 2 || cgi(got.Header)["HTTP_X_USER_ID"] != "alice" {
		t.Fatalf("the application saw HTTP/%d %v", got.Proto, got.Header)
	}
	if a := w.doWith(client, "GET", "/x", header("Authorization", "Bearer a"), header("Authorization", "Bearer b")); a.reason(t) != token.HeadersAmbiguous {
		t.Errorf("two Authorization headers: %s", a.Body)
	}
	if a := w.doWith(client, "GET", "/public/%2e%2e/closed"); a.reason(t) != token.PathAmbiguous {
		t.Errorf("an ambiguous path: %s", a.Body)
	}
	if a := w.doWith(client, "GET", "/x", bearer(w.signer.token(expired))); a.Status != 200 || a.Header.Get("Authorization") == "" {
		t.Errorf("an expired token: status %d", a.Status)
	}
}

func TestApplicationThatDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	w.backend.server.Close()
	a := w.do("GET", "/x", bearer(w.signer.token(expired)))
	if a.Status != http.StatusBadGateway || a.Header.Get("Content-Type") != protocol.ProblemContentType || strings.Contains(a.Body, `"reason"`) {
		t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	if a.Header.Get("Authorization") == "" {
		t.Error("the new token is lost with the answer")
	}
	if !w.metric("tokenward_sidecar_upstream_errors_total 1") {
		t.Error("not counted")
	}
}
