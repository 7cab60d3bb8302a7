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

// quiet is how long a connection that carries no request stays open once the pod
// ends. A client that calls more often hears of it with its next answer instead. A
// request that is still on the network can meet the close, hence as long as the five
// seconds allow that applications are told to sleep.
const quiet = 4 * time.Second

// connections has clients go elsewhere before the application ends. The kubelet ends a
// sidecar after the application, so that SIGTERM comes too late for that: who has a
// connection would meet a sidecar without an application. See ADR 0022.
//
//	leaving ──▶ each answer says "Connection: close" (HTTP/2: GOAWAY),
//	            a connection without requests is closed
//
// New connections are taken as before: nodes lead some here until they know better.
type connections struct {
	leaving atomic.Bool
	mu      sync.Mutex
	idle    map[net.Conn]time.Time
}

func newConnections() *connections { return &connections{idle: map[net.Conn]time.Time{}} }

// note is for [http.Server.ConnState].
func (c *connections) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateIdle {
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
		c.closeQuiet(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *connections) closeQuiet(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, since := range c.idle {
		if now.Sub(since) >= quiet && !begun(conn) {
			_ = conn.Close() // how it ends does not matter: nothing is under way on it
			delete(c.idle, conn)
		}
	}
}

// begun says whether a request has come that the server did not get to read: on a node
// without free CPU that can be a while.
func begun(conn net.Conn) bool {
	framed, ok := conn.(interface{ Begun() bool })
	return ok && framed.Begun()
}
