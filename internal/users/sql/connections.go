// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"maps"
	"net"
	"strings"
	"sync/atomic"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// losses counts how often connections were found dead. What was made before the last loss
// is not used again: what has cut one, such as a restart of the server, has probably cut
// those that wait beside it, too, and a pool that was busy a moment ago does not look.
type losses struct{ count atomic.Int64 }

// after a loss that a call met which began at that count. Of many calls that met the same
// one counts it.
func (l *losses) after(count int64) { l.count.CompareAndSwap(count, count+1) }

// survive calls, and once more where the connection was cut while it was idle.
func (l *losses) survive(ctx context.Context, call func() error) error {
	count := l.count.Load()
	err := call()
	if isLost(ctx, err) {
		l.after(count)
		err = call()
	}
	return err
}

// isLost reports whether the connection broke, and not because the caller gave up.
func isLost(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	if postgres, ok := errors.AsType[*pgconn.PgError](err); ok {
		return postgres.Code == "57P01" || postgres.Code == "57P02" // the last words before it closes
	}
	op, broke := errors.AsType[*net.OpError](err)
	return broke && (op.Op == "read" || op.Op == "write") && !op.Timeout() ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, driver.ErrBadConn)
}

const (
	// readOnly is a setting of PostgreSQL that a connection is opened with.
	readOnly = "default_transaction_read_only"
	// madeAt is the count of losses at which a connection was made.
	madeAt = "tokenward.madeAt"
)

// postgresConnections are read-only: whatever the queries and the rights of the user say,
// nothing is written. It costs no round trip.
type postgresConnections struct {
	driver.Connector
	// pooled: what is there does not take the setting, as PgBouncer, which would not keep
	// it to us either if it were set later.
	pooled atomic.Bool
}

func newPostgresConnections(config *pgx.ConnConfig, lost *losses) *postgresConnections {
	c := &postgresConnections{}
	c.Connector = stdlib.GetConnector(*config,
		stdlib.OptionBeforeConnect(func(_ context.Context, config *pgx.ConnConfig) error {
			if !c.pooled.Load() {
				config.RuntimeParams = maps.Clone(config.RuntimeParams) // which all connections share
				config.RuntimeParams[readOnly] = "on"
			}
			return nil
		}),
		stdlib.OptionAfterConnect(func(_ context.Context, conn *pgx.Conn) error {
			conn.PgConn().CustomData()[madeAt] = lost.count.Load()
			return nil
		}),
		stdlib.OptionResetSession(func(_ context.Context, conn *pgx.Conn) error {
			if conn.PgConn().CustomData()[madeAt] != lost.count.Load() {
				return driver.ErrBadConn // another one is taken
			}
			return nil
		}))
	return c
}

// Connect implements [driver.Connector].
func (c *postgresConnections) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == "08P01" && strings.Contains(server.Message, readOnly) && !c.pooled.Swap(true) {
		return c.Connector.Connect(ctx)
	}
	return conn, err
}

// mysqlConnections are read-only, too. The driver itself looks whether a connection that
// has waited is still there.
type mysqlConnections struct{ driver.Connector }

// Connect implements [driver.Connector].
func (c mysqlConnections) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	err = errors.New("the driver executes nothing")
	if executer, ok := conn.(driver.ExecerContext); ok {
		// The variable has another name with each kind of server, the statement has not.
		_, err = executer.ExecContext(ctx, "SET SESSION TRANSACTION READ ONLY", nil)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}
