// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package outbound

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
)

// ErrTooMuch is what a connection of [Capped] ends with.
var ErrTooMuch = errors.New("the server sends more than its answers can be")

// Capped wraps a dialler, so that a connection ends when its server sends more than
// limit bytes without being asked anything: from one write to the next. The issuer
// serves many tenants, and none of their servers may take its memory. Each time cut is
// called, unless it is nil.
func Capped(
	dial func(ctx context.Context, network, address string) (net.Conn, error), limit int64, cut func(),
) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &capped{Conn: conn, limit: limit, cut: cut}
		c.left.Store(limit)
		return c, nil
	}
}

// capped counts what is read since the last write.
type capped struct {
	net.Conn
	limit int64
	left  atomic.Int64
	cut   func()
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left.Load() <= 0 {
		if c.cut != nil {
			c.cut()
		}
		return 0, ErrTooMuch
	}
	n, err := c.Conn.Read(p)
	c.left.Add(-int64(n))
	return n, err
}

func (c *capped) Write(p []byte) (int, error) {
	c.left.Store(c.limit)
	return c.Conn.Write(p)
}

// SyscallConn lets a driver see whether an idle connection was closed.
func (c *capped) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}
