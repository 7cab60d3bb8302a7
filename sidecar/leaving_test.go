// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
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

// standing is a set of connections, each in one state; closed says what became of them.
type standing struct {
	*connections
	ends map[string]net.Conn
}

func newStanding(t *testing.T, states map[string][]http.ConnState) *standing {
	t.Helper()
	s := &standing{newConnections(), map[string]net.Conn{}}
	for name, states := range states {
		client, server := net.Pipe()
		t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
		for _, state := range states {
			s.note(server, state)
		}
		s.ends[name] = client
	}
	return s
}

// closed lists them.
func (s *standing) closed() (names []string) {
	for name, client := range s.ends {
		// A pipe says so when its other end was closed.
		if client.SetReadDeadline(time.Now()) != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func states() map[string][]http.ConnState {
	return map[string][]http.ConnState{
		"unused":        {http.StateNew},
		"between calls": {http.StateNew, http.StateActive, http.StateIdle},
		"busy":          {http.StateNew, http.StateActive, http.StateIdle, http.StateActive},
	}
}

func TestQuietConnectionsAreClosedWhenThePodEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStanding(t, states())
		ctx, stop := context.WithCancel(t.Context())
		go s.closeWhenQuiet(ctx)
		time.Sleep(quiet - time.Millisecond)
		synctest.Wait()
		if got := s.closed(); len(got) > 0 {
			t.Errorf("closed although a request may be on its way: %v", got)
		}
		time.Sleep(quiet / 2)
		synctest.Wait()
		if got, want := s.closed(), []string{"between calls", "unused"}; !slices.Equal(got, want) {
			t.Errorf("closed: %v, want %v", got, want)
		}
		if len(s.idle) != 0 {
			t.Errorf("%d connections are remembered for nothing", len(s.idle))
		}
		stop()
		synctest.Wait()
	})
}

func TestAllButBusyConnectionsAreClosedWhenTheProcessEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStanding(t, states())
		began := time.Now()
		s.settle(t.Context())
		if got, want := s.closed(), []string{"between calls", "unused"}; !slices.Equal(got, want) {
			t.Errorf("closed: %v, want %v", got, want)
		}
		if took := time.Since(began); took < settled || took > 2*settled || !s.leaving.Load() {
			t.Errorf("it took %s, leaving %t; want about %s and that clients are told", took, s.leaving.Load(), settled)
		}
	})
}

// requested is a connection on which a request waits.
type requested struct{ net.Conn }

func (requested) Begun() bool { return true }

func TestAConnectionOnWhichARequestWaitsIsNotQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer func() { _ = client.Close(); _ = server.Close() }()
		c := newConnections()
		conn := requested{server}
		c.note(conn, http.StateIdle)
		time.Sleep(2 * quiet)
		c.closeQuiet(quiet)
		if _, waits := c.idle[conn]; !waits {
			t.Fatal("it was closed, and the request on it failed")
		}
		began := time.Now()
		time.AfterFunc(settleTimeout/2, func() { c.note(conn, http.StateActive) })
		c.settle(t.Context())
		if took := time.Since(began); took < settleTimeout/2 || took >= settleTimeout {
			t.Errorf("settled after %s, want it when the request is read, after %s", took, settleTimeout/2)
		}
		c.note(conn, http.StateIdle)
		began = time.Now()
		c.settle(t.Context())
		if took := time.Since(began); took != settleTimeout {
			t.Errorf("one that is never read is waited for %s, want %s", took, settleTimeout)
		}
	})
}
