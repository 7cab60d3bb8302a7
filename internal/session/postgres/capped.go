// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"
)

// What a server may send until it is asked the next thing, and in one message, to which the
// driver gives memory before it reads it. A page of sessions comes near neither. The issuer
// serves other tenants too, and none of their servers may take its memory.
const (
	maxExchange = 8 << 20
	maxMessage  = 1 << 20
)

var errTooMuch = errors.New("the server sends more than an answer about sessions can be")

// capping wraps a dialler, so that its connections end when a server sends too much.
func capping(plain pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := plain(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &capped{Conn: conn}
		c.left.Store(maxExchange)
		return c, nil
	}
}

// capped counts what is read since the last write.
type capped struct {
	net.Conn
	left atomic.Int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left.Add(-int64(n)) < 0 {
		return 0, errTooMuch
	}
	return n, err
}

func (c *capped) Write(p []byte) (int, error) {
	c.left.Store(maxExchange)
	return c.Conn.Write(p)
}
