// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// quiet is how long a connection that carries no request stays open once the pod
	// ends. A client that calls more often hears of it with its next answer instead. A
	// request that is still on the network can meet the close, hence as long as the five
	// seconds allow that applications are told to sleep.
	quiet = 4 * time.Second
	// settled is the same once the process ends, and settleTimeout how long all of that
	// may take.
	settled       = 100 * time.Millisecond
	settleTimeout = time.Second
)

// connections has clients go elsewhere before the application ends. The kubelet ends a
// sidecar after the application, so that SIGTERM comes too late for that: who has a
// connection would meet a sidecar without an application. See ADR 0022.
//
//	leaving ──▶ each answer says "Connection: close" (HTTP/2: GOAWAY),
//	            a connection without requests is closed
//
// New connections are taken as before: nodes lead some here until they know better.
//
// [http.Server] would close them too, when it is shut down, but it does not ask whether a
// request has come that it did not get to read.
type connections struct {
	leaving atomic.Bool
	mu      sync.Mutex
	// idle are those without a request, since when. Clients open some in advance.
	idle map[net.Conn]time.Time
}

func newConnections() *connections { return &connections{idle: map[net.Conn]time.Time{}} }

// note is for [http.Server.ConnState].
func (c *connections) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateNew || state == http.StateIdle {
		c.idle[conn] = time.Now()
		return
	}
	delete(c.idle, conn)
}

// closeWhenQuiet goes on until ctx ends.
func (c *connections) closeWhenQuiet(ctx context.Context) {
	ticker := time.NewTicker(quiet / 4)
	defer ticker.Stop()
	for {
		c.closeQuiet(quiet)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// settle closes all that carry no request, and gives what is under way on the others the
// time to be read. No new ones may come.
func (c *connections) settle(ctx context.Context) {
	c.leaving.Store(true)
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	ticker := time.NewTicker(settled / 4)
	defer ticker.Stop()
	for c.closeQuiet(settled) > 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// closeQuiet closes those that have carried nothing for so long, and says how many are left.
func (c *connections) closeQuiet(long time.Duration) (left int) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, since := range c.idle {
		if now.Sub(since) >= long && !begun(conn) {
			_ = conn.Close() // how it ends does not matter: nothing is under way on it
			delete(c.idle, conn)
		}
	}
	return len(c.idle)
}

// begun says whether a request has come that the server did not get to read: on a node
// without free CPU that can be a while.
func begun(conn net.Conn) bool {
	framed, ok := conn.(interface{ Begun() bool })
	return ok && framed.Begun()
}
