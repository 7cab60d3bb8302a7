// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/session"
)

const (
	// sweepPage is how many rows one statement of a sweep looks at.
	sweepPage = 1000
	// sweepPause leaves the server to others between two of them.
	sweepPause = 50 * time.Millisecond
)

// sweepStatement looks at the page of rows after a place in the primary key and
// removes the dead ones. A row that somebody else works on is left for the next time.
const sweepStatement = `WITH page AS MATERIALIZED (
		SELECT policy, id FROM tokenward.sessions WHERE (policy, id) > ($1, $2) ORDER BY policy, id LIMIT $3
	), dead AS (
		SELECT s.policy, s.id FROM tokenward.sessions AS s JOIN page USING (policy, id)
		WHERE s.keep_until < $4 FOR UPDATE OF s SKIP LOCKED
	), removed AS (
		DELETE FROM tokenward.sessions AS s USING dead WHERE s.policy = dead.policy AND s.id = dead.id RETURNING 1
	)
	SELECT policy, id, (SELECT count(*) FROM removed), (SELECT count(*) FROM page)
	FROM page ORDER BY policy DESC, id DESC LIMIT 1`

// Sweep removes the sessions of all policies, also of those that are gone, that can
// neither be refreshed nor have a token alive. It returns how many it removed.
func (d *Database) Sweep(ctx context.Context) (removed int, err error) {
	var policy session.PolicyID
	var id session.ID
	for {
		var dead, seen int
		err := d.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			err := conn.QueryRow(ctx, sweepStatement, string(policy), string(id), sweepPage, d.config.Now()).
				Scan((*string)(&policy), (*string)(&id), &dead, &seen)
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
