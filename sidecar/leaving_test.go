// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// leave does what the kubelet does when the pod begins to end.
func (w *world) leave() {
	w.t.Helper()
	if err := tellToLeave(w.t.Context(), portOf(w.t, w.admin)); err != nil {
		w.t.Fatal(err)
	}
}

func TestClientsAreSentElsewhereBeforeTheApplicationEnds(t *testing.T) {
	w := newWorld(t)
	kept := dialRaw(t, w.addr)
	ask := "GET /x HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer " + w.signer.token() + "\r\n\r\n"
	kept.send(ask)
	if res := kept.response(); res.StatusCode != 200 || res.Close {
		t.Fatalf("before: status %d, closing %t", res.StatusCode, res.Close)
	}

	w.leave()
	w.leave() // the kubelet may say it again
	kept.send(ask)
	if res := kept.response(); res.StatusCode != 200 || !res.Close {
		t.Errorf("the next answer on a connection: status %d, closing %t; want 200 and a client that connects anew", res.StatusCode, res.Close)
	}
	refused := dialRaw(t, w.addr)
	refused.send("GET /x HTTP/1.1\r\nHost: shop\r\n\r\n")
	if res := refused.response(); res.StatusCode != 403 || !res.Close {
		t.Errorf("a refusal: status %d, closing %t", res.StatusCode, res.Close)
	}
	if a := w.do("GET", "/x", bearer(w.signer.token())); a.Status != 200 {
		t.Errorf("who connects anew: status %d, want 200: nodes lead connections here for a moment", a.Status)
	}
	if status, r := w.readiness(); status != 200 {
		t.Errorf("readiness %d %q, want 200: without other pods a Service leads to ending ones that are ready", status, r.Reason)
	}
}

func TestAWebSocketOutlivesTheBeginningOfTheEnd(t *testing.T) {
	w := newWorld(t)
	w.backend.handle(echoWebSocket(t, func() {}))
	w.leave()
	socket := dialRaw(t, w.addr)
	socket.send("GET /stream HTTP/1.1\r\n" + webSocketHead + "Authorization: Bearer " + w.signer.token() + "\r\n\r\n")
	if res := socket.response(); res.StatusCode != 101 || !strings.EqualFold(res.Header.Get("Connection"), "upgrade") {
		t.Fatalf("status %d, Connection %q", res.StatusCode, res.Header.Get("Connection"))
	}
	socket.echo("open")
}

func TestQuietConnectionsAreClosedWhenThePodEnds(t *testing.T) {
	c := newConnections()
	open := func(states ...http.ConnState) (client net.Conn) {
		client, server := net.Pipe()
		t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
		for _, s := range states {
			c.note(server, s)
		}
		return client
	}
	isClosed := func(client net.Conn) bool {
		_ = client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := bufio.NewReader(client).ReadByte()
		return err != nil && !isTimeout(err)
	}
	quietOne, busy, fresh := open(http.StateNew, http.StateActive, http.StateIdle), open(http.StateNew, http.StateActive, http.StateIdle, http.StateActive), open(http.StateNew)
	c.closeQuiet(time.Now())
	if isClosed(quietOne) {
		t.Error("closed although a request may be on its way")
	}
	c.closeQuiet(time.Now().Add(quiet))
	if !isClosed(quietOne) || isClosed(busy) || isClosed(fresh) {
		t.Errorf("closed: quiet %t, with a request %t, new %t; want the quiet one alone", isClosed(quietOne), isClosed(busy), isClosed(fresh))
	}
	if len(c.idle) != 0 {
		t.Errorf("%d connections are remembered for nothing", len(c.idle))
	}
}

// requested is a connection on which a request waits.
type requested struct{ net.Conn }

func (requested) Begun() bool { return true }

func TestAConnectionOnWhichARequestWaitsIsNotQuiet(t *testing.T) {
	client, server := net.Pipe()
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	c := newConnections()
	conn := requested{server}
	c.note(conn, http.StateIdle)
	c.closeQuiet(time.Now().Add(2 * quiet))
	if _, waits := c.idle[conn]; !waits {
		t.Error("it was closed, and the request on it failed")
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error) //nolint:errorlint // as it comes from a pipe
	return ok && timeout.Timeout()
}
