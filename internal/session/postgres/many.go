// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/session"
)

// revokeAtOnce is how many sessions one statement revokes. It holds the lock of the
// policy's numbers, for which other revocations wait, for some hundredths of a second.
const revokeAtOnce = 500

// revokeManyStatement does to some sessions at once what revokeStatement does to one,
// and locks in the same order. They are locked in the order of their IDs, so that two of
// them do not wait for each other. A refresh that comes in between makes the row locked
// as it has become.
func revokeManyStatement(chosen string) string {
	return `WITH live AS MATERIALIZED (
		SELECT id FROM tokenward.sessions
		WHERE policy = $1 AND ` + chosen + ` AND id > $2 AND revoked_at IS NULL AND keep_until >= $3
			AND (created_at IS NULL OR created_at <= $4)
		ORDER BY id LIMIT $5 FOR UPDATE
	), chosen AS MATERIALIZED (
		SELECT id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS total FROM live
	), numbered AS (
		INSERT INTO tokenward.policies AS counter (policy, revocations)
		SELECT $1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + total FROM chosen LIMIT 1
		ON CONFLICT (policy) DO UPDATE SET revocations =
			greatest(counter.revocations + (SELECT count(*) FROM live), excluded.revocations)
		RETURNING revocations, pg_notify('` + channel + `', policy) AS notified
	), revoked AS (
		UPDATE tokenward.sessions AS s SET version = $6, prior = version, revoked_at = $7, revoked_reason = $8,
			revocation = numbered.revocations - chosen.total + chosen.place, current_claims = NULL, keep_until = forget_after
		FROM chosen, numbered
		WHERE s.policy = $1 AND s.id = chosen.id
		RETURNING s.id
	)
	SELECT count(*), coalesce(max(id COLLATE "C"), '') FROM revoked`
}

var (
	revokeAllStatement     = revokeManyStatement("true")
	revokeSubjectStatement = revokeManyStatement("subject = $9")
)

// madeStatement looks for what an attempt has done whose answer was lost.
const madeStatement = `SELECT count(*), coalesce(max(id), '') FROM tokenward.sessions
	WHERE policy = $1 AND id > $2 AND version = $3`

// RevokeWhere is [session.Revoker.RevokeWhere].
func (s *Store) RevokeWhere(ctx context.Context, which session.Selection, as session.Revocation) (revoked int, err error) {
	if !which.AllSubjects && which.Subject == "" {
		return 0, s.do(ctx, func(context.Context, *pgx.Conn) error { return nil })
	}
	as.At = as.At.Truncate(time.Second)
	for after := ""; ; {
		var n int
		var last string
		version, attempt := newVersion(), 0
		err := s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if attempt++; attempt > 1 {
				err := conn.QueryRow(ctx, madeStatement, string(s.policy), after, version).Scan(&n, &last)
				if err != nil || n > 0 {
					return err
				}
			}
			return s.revokeSome(ctx, conn, which, as, after, version).Scan(&n, &last)
		})
		if err != nil {
			return revoked, err
		}
		revoked += n
		if n < revokeAtOnce {
			return revoked, nil
		}
		after = last
	}
}

func (s *Store) revokeSome(ctx context.Context, conn *pgx.Conn, which session.Selection, as session.Revocation, after, version string) pgx.Row {
	arguments := []any{string(s.policy), after, s.now(), which.CreatedUntil, revokeAtOnce, version, as.At, string(as.Reason)}
	if which.AllSubjects {
		return conn.QueryRow(ctx, revokeAllStatement, arguments...)
	}
	return conn.QueryRow(ctx, revokeSubjectStatement, append(arguments, which.Subject)...)
}
