// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenward/tokenward/sidecar/framing"
)

// pipes is a listener without a network, whose time can be synctest's.
type pipes struct {
	opened chan net.Conn
	closed chan struct{}
	close  func()
}

func newPipes() *pipes {
	p := &pipes{opened: make(chan net.Conn), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	return p
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.opened:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.close(); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) open() net.Conn {
	client, server := net.Pipe()
	p.opened <- server
	return client
}

func TestOnlyAHeadThatHasBegunIsInAHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := newPipes()
		answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		server := newServer(t.Context(), answer, &sync.WaitGroup{}, slog.New(slog.DiscardHandler))
		served := make(chan error, 1)
		go func() { served <- server.Serve(&framing.Listener{Listener: listener, HeadTimeout: headTimeout}) }()

		inAdvance := listener.open()
		time.Sleep(idleTimeout - time.Second)
		if _, err := io.WriteString(inAdvance, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n"); err != nil {
			t.Fatalf("a connection was closed before its client could use it: %v", err)
		}
		res, err := http.ReadResponse(bufio.NewReader(inAdvance), nil)
		if err != nil || res.StatusCode != http.StatusNoContent {
			t.Fatalf("the first request on a connection that was opened long before: %v", err)
		}
		_ = inAdvance.Close()

		for what, c := range map[string]struct {
			sent string
			want time.Duration
		}{
			"no byte":       {"", idleTimeout},
			"half a head":   {"GET / HTTP/1.1\r\nHo", headTimeout},
			"half a prefix": {"PRI * HT", headTimeout},
		} {
			conn, began := listener.open(), time.Now()
			if _, err := io.WriteString(conn, c.sent); err != nil {
				t.Fatal(err)
			}
			_, err := io.ReadAll(conn)
			if took := time.Since(began); took != c.want || err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s: closed after %s with %v, want %s", what, took, err, c.want)
			}
			_ = conn.Close()
		}
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}
