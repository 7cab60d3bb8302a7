// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// sweepPage is how many rows one statement of a sweep looks at.
	sweepPage = 1000
	// sweepPause leaves the server to others between two of them.
	sweepPause = 50 * time.Millisecond
)

// sweepStatement looks at the page of rows after a place in the primary key and
// removes the dead ones. A row that somebody else works on is left for the next time.
func sweepStatement(table, key, dead string) string {
	return strings.NewReplacer("TABLE", "tokenward."+table, "KEY", key, "DEAD", dead).Replace(`WITH page AS MATERIALIZED (
		SELECT policy, KEY FROM TABLE WHERE (policy, KEY) > ($1, $2) ORDER BY policy, KEY LIMIT $3
	), dead AS (
		SELECT t.policy, t.KEY FROM TABLE AS t JOIN page USING (policy, KEY)
		WHERE DEAD FOR UPDATE OF t SKIP LOCKED
	), removed AS (
		DELETE FROM TABLE AS t USING dead WHERE t.policy = dead.policy AND t.KEY = dead.KEY RETURNING 1
	)
	SELECT policy, KEY, (SELECT count(*) FROM removed), (SELECT count(*) FROM page)
	FROM page ORDER BY policy DESC, KEY DESC LIMIT 1`)
}

var (
	sweepSessions = sweepStatement("sessions", "id", "t.keep_until < $4")
	sweepAttempts = sweepStatement("attempts", "key", "t.whole <= $4")
)

// Sweep removes the sessions of all policies, also of those that are gone, that can
// neither be refreshed nor have a token alive, and returns how many it removed. It also
// forgets attempts whose allowance is whole again.
func (d *Database) Sweep(ctx context.Context) (removed int, err error) {
	now := d.config.Now()
	removed, err = d.sweep(ctx, sweepSessions, now)
	if err == nil {
		_, err = d.sweep(ctx, sweepAttempts, now.UnixMilli())
	}
	return removed, err
}

func (d *Database) sweep(ctx context.Context, statement string, now any) (removed int, err error) {
	policy, key := "", ""
	for {
		var dead, seen int
		err := d.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			err := conn.QueryRow(ctx, statement, policy, key, sweepPage, now).Scan(&policy, &key, &dead, &seen)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil // the end
			}
			return err
		})
		if err != nil {
			return removed, err
		}
		removed += dead
		if seen < sweepPage {
			return removed, nil
		}
		if err := sleep(ctx, sweepPause); err != nil {
			return removed, err
		}
	}
}

// sweepNowAndThen sweeps at times that differ from one process to the next.
func (d *Database) sweepNowAndThen() {
	every := d.config.SweepInterval
	if every < 0 {
		return
	}
	for sleep(d.ctx, around(every)) == nil {
		if _, err := d.Sweep(d.ctx); err != nil && d.ctx.Err() == nil {
			d.config.Log.Error(err, "cannot remove dead sessions")
		}
	}
}
