// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
)

// maxExchange is how many bytes a server may send until it is asked the next thing.
// A row about one user is far smaller; the issuer serves other tenants too, and none
// of their databases may take its memory.
const maxExchange = 1 << 20

var errTooMuch = errors.New("the server sends more than an answer about one user can be")

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// cappedDial wraps a dialler, so that its connections end when a server sends too much.
// Each time is counted in cuts.
func cappedDial(dial dialer, cuts *atomic.Int64) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &capped{Conn: conn, cuts: cuts}
		c.left.Store(maxExchange)
		return c, nil
	}
}

// capped counts what is read since the last write.
type capped struct {
	net.Conn
	left atomic.Int64
	cuts *atomic.Int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left.Load() <= 0 {
		c.cuts.Add(1)
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(p)
	c.left.Add(-int64(n))
	return n, err
}

func (c *capped) Write(p []byte) (int, error) {
	c.left.Store(maxExchange)
	return c.Conn.Write(p)
}

// SyscallConn lets the MySQL driver see whether an idle connection was closed.
func (c *capped) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}
