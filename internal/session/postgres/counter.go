// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/attempts"
)

var _ attempts.Counter = (*Store)(nil)

// takeStatement is [attempts.Limit.Take] as far as the moment is one that can be. It
// writes nothing when nothing is left, so that who guesses much costs no write each time.
// $4 is the time, $5 the last moment at which something is left, $6 that of an attempt.
// The answer is the new moment if one was taken, and the moment and its writer of before.
// Who asks a second time may have a first one at work at the server still, and waits for
// it: that is why the writer is looked at twice.
const takeStatement = `WITH seen AS MATERIALIZED (
		SELECT whole, writer FROM tokenward.attempts WHERE policy = $1 AND key = $2
	), taken AS (
		INSERT INTO tokenward.attempts AS kept (policy, key, whole, writer)
		SELECT $1, $2, $4::bigint + $6::bigint, $3
		WHERE NOT EXISTS (SELECT FROM seen WHERE whole > $5 OR writer = $3)
		ON CONFLICT (policy, key) DO UPDATE SET whole = greatest(kept.whole, $4) + $6, writer = excluded.writer
		WHERE kept.whole <= $5 AND kept.writer <> $3
		RETURNING whole
	)
	SELECT (SELECT whole FROM taken), (SELECT whole FROM seen), (SELECT writer FROM seen)`

// cutStatement brings a moment back that cannot be.
const cutStatement = `UPDATE tokenward.attempts SET whole = $4, writer = $3 WHERE policy = $1 AND key = $2 AND whole > $5`

// Take is [attempts.Counter.Take].
func (s *Store) Take(ctx context.Context, key attempts.Key, limit attempts.Limit) (wait time.Duration, err error) {
	interval := limit.Interval.Milliseconds()
	now := s.now()
	usedUp := now.Add(time.Duration(limit.Burst) * limit.Interval).UnixMilli()
	furthest, left := usedUp+attempts.Skew.Milliseconds(), usedUp-interval
	writer := newVersion()
	err = s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for {
			wait = 0
			var taken, seen *int64
			var by *string
			err := conn.QueryRow(ctx, takeStatement, string(s.policy), string(key), writer, now.UnixMilli(), left, interval).Scan(&taken, &seen, &by)
			switch {
			case err != nil:
				return err
			case taken != nil, text(by) == writer: // in an attempt whose answer was lost
				return nil
			case seen == nil, *seen <= left:
				continue // somebody else took the last one after the statement had begun
			case *seen > furthest:
				wait = limit.Interval
				_, err = conn.Exec(ctx, cutStatement, string(s.policy), string(key), writer+"-", usedUp, furthest)
				return err
			}
			wait = time.Duration(*seen-left) * time.Millisecond
			return nil
		}
	})
	return wait, err
}

// giveBackStatement leaves alone what its writer has changed already.
const giveBackStatement = `UPDATE tokenward.attempts SET whole = whole - $4, writer = $3
	WHERE policy = $1 AND key = $2 AND writer <> $3`

// GiveBack is [attempts.Counter.GiveBack].
func (s *Store) GiveBack(ctx context.Context, key attempts.Key, limit attempts.Limit) error {
	writer := newVersion()
	return s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, giveBackStatement, string(s.policy), string(key), writer, limit.Interval.Milliseconds())
		return err
	})
}
