// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"context"
	databasesql "database/sql"
	"time"
)

// mistakeLasts is for how long [Source.Check] reports what a user's row has shown.
const mistakeLasts = 10 * time.Minute

// Report says what logins have shown since the source was made.
type Report struct {
	// Unusable is how many users, of at most 256 that are remembered, have no hash in
	// the password's column that can be verified: they cannot log in.
	Unusable int
	// Reason is what is wrong with one of these hashes. It quotes nothing of it.
	Reason string
}

// Report says what logins have shown.
func (s *Source) Report() Report { return s.costs.report() }

// Check asks the database whether the configuration is right: it connects, prepares
// both queries and runs them with NULL for every parameter, in a transaction that
// cannot write, to see their columns. It returns nil or a [*users.UnavailableError],
// or the context's own error.
//
// What only a user's row can show, such as two rows for one user, is reported for ten
// minutes after a login or refresh has met it.
func (s *Source) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*s.timeout)
	defer cancel()
	// Not again after the first dead connection by itself, as a query is.
	if err := s.authenticate.lost.survive(ctx, func() error { return s.db.PingContext(ctx) }); err != nil {
		return explain(err, "", false)
	}
	if err := s.try(ctx, s.authenticate, s.authenticating); err != nil {
		return err
	}
	if err := s.try(ctx, s.lookup, s.lookingUp); err != nil {
		return err
	}
	if last := s.lastMistake.Load(); last != nil && s.now().Sub(last.at).Abs() < mistakeLasts {
		return last.err
	}
	return nil
}

// try it, and once more where the connection was cut while it was idle.
func (s *Source) try(ctx context.Context, q *query, l layout) error {
	err := q.lost.survive(ctx, func() error { return s.tryOnce(ctx, q, l) })
	return explain(err, q.name, false)
}

// tryOnce returns an error that is fit to be shown, or one that [isLost].
func (s *Source) tryOnce(ctx context.Context, q *query, l layout) error {
	if err := q.countParameters(ctx); err != nil {
		return err
	}
	tx, err := s.db.BeginTx(ctx, &databasesql.TxOptions{ReadOnly: true})
	if isLost(ctx, err) {
		return err
	}
	if err != nil {
		return explain(err, q.name, false)
	}
	defer func() { _ = tx.Rollback() }()
	rows, err := tx.QueryContext(ctx, q.text, make([]any, q.parameters)...)
	if isLost(ctx, err) {
		return err
	}
	if err != nil {
		return explain(err, q.name, true) // all parameters are NULL
	}
	defer func() { _ = rows.Close() }()
	types, err := rows.ColumnTypes()
	if err != nil {
		return explain(err, q.name, false)
	}
	var columns []column
	for _, t := range types {
		columns = append(columns, column{name: t.Name(), kind: t.DatabaseTypeName()})
	}
	return l.check(q.name, columns)
}
