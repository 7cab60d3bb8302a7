// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

const cutListeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tokenward-revocations' AND datname = current_database()"

func raw(tb testing.TB, server *testservers.PostgresServer, database string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), server.URL(database))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.WithoutCancel(tb.Context())) })
	return conn
}

func TestRevocations(t *testing.T) {
	server := testservers.Postgres(t)

	// With numbers of a sequence the second revocation would be committed first and seen
	// with the higher number, and a cursor after it would pass by the first one.
	t.Run("one that is committed late is not passed by", func(t *testing.T) {
		database := server.Database(t)
		d := open(t, testConfig(server, database))
		store := d.Store(storetest.NewPolicyID(), StoreOptions{})
		slow, quick := create(t, store), create(t, store)

		tx, err := raw(t, server, database).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), revokeStatement, string(store.policy), string(slow.ID), newVersion(), time.Now(), string(token.SessionRevoked), time.Now(),
			when(slow.TokensUntil), slow.ForgetAfter()); err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		go func() {
			_, err := store.Swap(t.Context(), quick.Revoke(token.SessionRevoked, time.Now()))
			second <- err
		}()
		// It has either been committed, or it waits for the first one.
		watch := raw(t, server, database)
		returned := false
		eventually(t, "the second revocation waits or is done", func() bool {
			select {
			case err := <-second:
				returned = true
				if err != nil {
					t.Error(err)
				}
				return true
			default:
			}
			var waiting int
			if err := watch.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'tokenward' AND datname = current_database()").Scan(&waiting); err != nil {
				t.Fatal(err)
			}
			return waiting > 0
		})
		early := listen(t, store, "")
		early.untilSynced(t)
		early.mu.Lock()
		cursor := early.cursor
		early.mu.Unlock()
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !returned {
			if err := <-second; err != nil {
				t.Fatal(err)
			}
		}
		early.untilSeen(t, slow, quick)
		resumed := listen(t, store, cursor)
		resumed.untilSynced(t)
		resumed.until(t, "the resumed stream has the late one", func(f *follow) bool { return f.seen[slow.ID] > 0 })
	})

	t.Run("nothing is missed when the listening connection is cut again and again", func(t *testing.T) {
		database := server.Database(t)
		config := testConfig(server, database)
		config.PollInterval = time.Hour // only a reconnect can tell
		there, here := open(t, config), open(t, config)
		policy := storetest.NewPolicyID()
		store, reader := there.Store(policy, StoreOptions{}), here.Store(policy, StoreOptions{})
		stream := listen(t, reader, "")
		stream.untilSynced(t)
		cutter := raw(t, server, database)
		var all []session.Session
		for i := range 60 {
			if i%6 == 0 {
				eventually(t, "it listens again", func() bool { return here.Stats().Listening })
				if _, err := cutter.Exec(t.Context(), cutListeners); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, revoke(t, store, create(t, store)))
		}
		stream.untilSeen(t, all...)
	})

	t.Run("one whose notification never came is found by looking", func(t *testing.T) {
		database := server.Database(t)
		config := testConfig(server, database)
		config.PollInterval = 20 * time.Millisecond
		d := open(t, config)
		store := d.Store(storetest.NewPolicyID(), StoreOptions{})
		stream := listen(t, store, "")
		stream.untilSynced(t)
		eventually(t, "it listens", func() bool { return d.Stats().Listening })
		for range 3 {
			silent := create(t, store)
			server.Exec(t, database, `WITH numbered AS (
					INSERT INTO tokenward.policies AS p VALUES ('`+string(store.policy)+`', (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
					ON CONFLICT (policy) DO UPDATE SET revocations = greatest(p.revocations + 1, excluded.revocations) RETURNING revocations
				) UPDATE tokenward.sessions SET revoked_at = now(), revoked_reason = 'session_revoked', revocation = revocations
				FROM numbered WHERE id = '`+string(silent.ID)+`'`)
			stream.untilSeen(t, silent)
		}
	})

	t.Run("a database restored from a backup sends what is new, whatever its numbers", func(t *testing.T) {
		database := server.Database(t)
		d := open(t, testConfig(server, database))
		store := d.Store(storetest.NewPolicyID(), StoreOptions{})
		before := revoke(t, store, create(t, store))
		// As if the clock had been ahead: the next numbers are below those that were seen.
		server.Exec(t, database, "UPDATE tokenward.sessions SET revocation = revocation + 10000000; UPDATE tokenward.policies SET revocations = revocations + 10000000")
		stream := listen(t, store, "")
		stream.untilSeen(t, before)
		stream.untilSynced(t)
		stream.mu.Lock()
		cursor := stream.cursor
		stream.mu.Unlock()
		server.Exec(t, database, "DELETE FROM tokenward.sessions; DELETE FROM tokenward.policies")
		after := revoke(t, store, create(t, store))
		stream.untilSeen(t, after)
		listen(t, store, cursor).untilSeen(t, after)
	})

	t.Run("more than fit in one reading all come before synced", func(t *testing.T) {
		d := open(t, testConfig(server, server.Database(t)))
		store := d.Store(storetest.NewPolicyID(), StoreOptions{})
		s := create(t, store)
		revoke(t, store, s)
		const copies = 2*feedPage + 17
		if err := d.do(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `WITH counted AS (UPDATE tokenward.policies SET revocations = revocations + $1)
				INSERT INTO tokenward.sessions (policy, id, version, prior, subject, generation, current_id, current_key_id, previous_id, revoked_at, revoked_reason, revocation, keep_until, forget_after)
				SELECT policy, id || n, version, prior, subject, generation, current_id, current_key_id, previous_id, revoked_at, revoked_reason, revocation + n, keep_until, forget_after
				FROM tokenward.sessions, generate_series(1, $1::int) AS n`, copies)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		stream := listen(t, store, "")
		stream.untilSynced(t)
		stream.mu.Lock()
		defer stream.mu.Unlock()
		if len(stream.seen) != copies+1 {
			t.Errorf("%d came, there are %d", len(stream.seen), copies+1)
		}
	})
}
