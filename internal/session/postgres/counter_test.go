// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
)

// The connection breaks while the server works on: the second try meets the first one.
func TestATakeThatIsTriedAgainWhileTheFirstIsAtWorkCountsOnce(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	policy := storetest.NewPolicyID()
	if err := open(t, testConfig(server, database)).Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	arguments := []any{string(policy), "key", "writer", now, now + 9000, 1000}
	first, second := raw(t, server, database), raw(t, server, database)
	tx, err := first.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), takeStatement, arguments...); err != nil {
		t.Fatal(err)
	}
	again := make(chan error, 1)
	go func() {
		_, err := second.Exec(t.Context(), takeStatement, arguments...)
		again <- err
	}()
	watcher := raw(t, server, database)
	eventually(t, "the second try waits for the first", func() bool {
		waiting := 0
		err := watcher.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'", second.PgConn().PID()).Scan(&waiting)
		return err == nil && waiting > 0
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-again; err != nil {
		t.Fatal(err)
	}
	var whole int64
	if err := watcher.QueryRow(t.Context(), "SELECT whole FROM tokenward.attempts WHERE policy = $1", string(policy)).Scan(&whole); err != nil || whole != now+1000 {
		t.Errorf("the allowance is whole %d ms from now, want 1000: %v", whole-now, err)
	}
}
