// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"context"
	databasesql "database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tokenward/tokenward/internal/users"
)

// query is one of the two of a source, prepared when it is first needed. database/sql
// prepares it again on each new connection.
type query struct {
	db *databasesql.DB
	// cuts counts the connections that were ended because too much came.
	cuts *atomic.Int64
	lost *losses
	// name in the policy: authenticate or lookup.
	name string
	text string
	// parameters is how many placeholders the text must have.
	parameters int
	// hint is added to what the database says against the text.
	hint string

	mu       sync.Mutex
	prepared *databasesql.Stmt
}

// one is what a query found.
type one struct {
	columns []column
	// values are nil when there is no row.
	values []any
}

type column struct {
	name string
	// kind is the database's name of the type, in upper case.
	kind string
}

// errValue says that the database could not make of a parameter what it is compared
// with: there is no row with such a value.
var errValue = errors.New("a value does not fit its type")

// run returns at most one row. More are an error. The error is [errValue] or fit to be shown.
func (q *query) run(ctx context.Context, arguments []any) (one, error) {
	for again := false; ; again = true {
		cuts, lost := q.cuts.Load(), q.lost.count.Load()
		var found one
		prepared, err := q.prepare(ctx)
		if err == nil {
			found, err = q.read(ctx, prepared, arguments)
		}
		var long *pgproto3.ExceededMaxBodyLenErr
		switch {
		case err == nil:
			return found, nil
		case isStale(err) && !again:
			q.forget(prepared)
		case isValue(err):
			return one{}, errValue
		case q.cuts.Load() > cuts, errors.As(err, &long):
			// Drivers do not pass the connection's own error on. With luck it was another query's,
			// which is as much to be mended.
			return one{}, mistake(users.FaultAnswer, "%s.query: the database sends more than %d bytes for it: select fewer columns, and one row", q.name, maxExchange)
		case isLost(ctx, err):
			q.lost.after(lost)
			if again {
				return one{}, explain(err, q.name, false)
			}
		default:
			return one{}, explain(err, q.name, false)
		}
	}
}

// prepare returns an error that is fit to be shown, or one that [isLost].
func (q *query) prepare(ctx context.Context) (*databasesql.Stmt, error) {
	q.mu.Lock()
	prepared := q.prepared
	q.mu.Unlock()
	if prepared != nil {
		return prepared, nil
	}
	if err := q.countParameters(ctx); err != nil {
		return nil, err
	}
	prepared, err := q.db.PrepareContext(ctx, q.text)
	switch {
	case isLost(ctx, err):
		return nil, err
	case err != nil:
		return nil, explain(err, q.name, true)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.prepared != nil { // another caller was faster
		_ = prepared.Close()
		return q.prepared, nil
	}
	q.prepared = prepared
	return prepared, nil
}

// countParameters has the database count the placeholders, as counting them here
// would mean to understand the query. The error is fit to be shown, or one that [isLost].
func (q *query) countParameters(ctx context.Context) error {
	conn, err := q.db.Conn(ctx)
	if err != nil {
		return explain(err, q.name, false)
	}
	defer func() { _ = conn.Close() }()
	count := 0
	err = conn.Raw(func(raw any) error {
		preparer, ok := raw.(driver.ConnPrepareContext)
		if !ok {
			return errors.New("the driver prepares nothing")
		}
		prepared, err := preparer.PrepareContext(ctx, q.text)
		if err != nil {
			return err
		}
		count = prepared.NumInput()
		return prepared.Close()
	})
	if isLost(ctx, err) {
		return err
	}
	if err != nil {
		err = explain(err, q.name, true)
		var unavailable *users.UnavailableError
		if q.hint != "" && errors.As(err, &unavailable) && unavailable.Fault == users.FaultSchema {
			return mistake(unavailable.Fault, "%s%s", unavailable.Detail, q.hint)
		}
		return err
	}
	if count != q.parameters {
		return mistake(users.FaultSchema, "%s.query: has %d placeholders, but there %s%s", q.name, count, plural(q.parameters), q.hint)
	}
	return nil
}

// placeholderHint is for a query that has the placeholders of the other kind of database
// and none of its own.
func placeholderHint(kind Driver, text string) string {
	mark, number := strings.Contains(text, "?"), strings.Contains(text, "$1")
	switch {
	case kind == Postgres && mark && !number:
		return ": placeholders are $1, $2 … with postgres, and not ?"
	case kind == MySQL && number && !mark:
		return ": placeholders are ? with mysql, and not $1"
	}
	return ""
}

func plural(n int) string {
	if n == 1 {
		return "is 1 parameter"
	}
	return fmt.Sprintf("are %d parameters", n)
}

// forget drops a statement that the server does not know any more, or whose tables
// have changed.
func (q *query) forget(prepared *databasesql.Stmt) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.prepared == prepared {
		q.prepared = nil
		_ = prepared.Close()
	}
}

func (q *query) read(ctx context.Context, prepared *databasesql.Stmt, arguments []any) (_ one, err error) {
	rows, err := prepared.QueryContext(ctx, arguments...)
	if err != nil {
		return one{}, err
	}
	defer func() {
		// Closing reads what is left, and only then is it known whether all went well.
		if closing := rows.Close(); err == nil && closing != nil {
			err = closing
		}
	}()
	types, err := rows.ColumnTypes()
	if err != nil {
		return one{}, err
	}
	var found one
	for _, t := range types {
		found.columns = append(found.columns, column{name: t.Name(), kind: t.DatabaseTypeName()})
	}
	if !rows.Next() {
		return found, rows.Err()
	}
	values := make([]any, len(types))
	targets := make([]any, len(types))
	for i := range values {
		targets[i] = &values[i]
	}
	if err := rows.Scan(targets...); err != nil {
		return one{}, err
	}
	if rows.Next() {
		return one{}, mistake(users.FaultAnswer, "%s.query: found more than one row for one user: nobody is let in until it finds exactly one", q.name)
	}
	found.values = values
	return found, rows.Err()
}

// isStale: 26000 is a statement that a connection pool or DISCARD ALL has removed,
// 0A000 comes when a table has changed under it.
func isStale(err error) bool {
	var postgres *pgconn.PgError
	return errors.As(err, &postgres) && (postgres.Code == "26000" || postgres.Code == "0A000")
}

// isValue: with PostgreSQL invalid text representation, out of range, malformed or
// overflowing dates, characters that the database cannot store. MySQL converts
// whatever it gets, but for characters that the column's character set does not have.
func isValue(err error) bool {
	if postgres, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch postgres.Code {
		case "22P02", "22003", "22007", "22008", "22021", "22P05":
			return true
		}
	}
	if my, ok := errors.AsType[*mysql.MySQLError](err); ok {
		switch my.Number {
		case 1267, 3854, 3988:
			return true
		}
	}
	return false
}
