// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
)

func TestMigrators(t *testing.T) {
	server := testservers.Postgres(t)

	t.Run("of many at once one makes the schema and all can use it", func(t *testing.T) {
		database := server.Database(t)
		var group sync.WaitGroup
		for range 8 {
			d := open(t, testConfig(server, database))
			group.Go(func() {
				if err := d.Check(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	})

	files := fstest.MapFS{
		"migrations/0001_a.sql": {Data: []byte("CREATE TABLE tokenward.a (n int)")},
		"migrations/0002_b.sql": {Data: []byte("INSERT INTO tokenward.a VALUES (2); ALTER TABLE tokenward.a ADD m int")},
		"migrations/0003_c.sql": {Data: []byte("INSERT INTO tokenward.a VALUES (3, 3)")},
	}
	all, err := migrations(files)
	if err != nil {
		t.Fatal(err)
	}
	connect := func(t *testing.T, database string) *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), server.URL(database))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
		return conn
	}
	rows := func(t *testing.T, conn *pgx.Conn) (n, versions int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM tokenward.a), (SELECT count(*) FROM tokenward.migrations)").Scan(&n, &versions); err != nil {
			t.Fatal(err)
		}
		return n, versions
	}

	t.Run("each migration is made once, by whichever release", func(t *testing.T) {
		database := server.Database(t)
		var group sync.WaitGroup
		for i := range 9 {
			known := all[:1+i%3] // releases of three ages
			conn := connect(t, database)
			group.Go(func() {
				var ours *Error
				if err := migrate(t.Context(), conn, known); err != nil && (!errors.As(err, &ours) || ours.Kind != SchemaNewer) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if n, versions := rows(t, connect(t, database)); n != 2 || versions != 3 {
			t.Errorf("%d rows, %d versions", n, versions)
		}
	})

	t.Run("one that fails leaves the schema as it was", func(t *testing.T) {
		conn := connect(t, server.Database(t))
		if err := migrate(t.Context(), conn, all[:1]); err != nil {
			t.Fatal(err)
		}
		if err := migrate(t.Context(), conn, []string{all[0], all[1], "SELECT 1/0"}); err == nil {
			t.Error("no error")
		}
		if n, versions := rows(t, conn); n != 0 || versions != 1 {
			t.Errorf("%d rows, %d versions", n, versions)
		}
	})

	t.Run("one that waits for another process ends with its caller, and with the database", func(t *testing.T) {
		database := server.Database(t)
		if _, err := connect(t, database).Exec(t.Context(), "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
			t.Fatal(err)
		}
		config := testConfig(server, database)
		config.Timeout = 200 * time.Millisecond
		d := open(t, config)
		var ours *Error
		if err := d.Check(t.Context()); !errors.As(err, &ours) || ours.Kind != Unreachable {
			t.Errorf("check: %v", err)
		}
		closed := make(chan struct{})
		go func() {
			_ = d.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Error("the database does not close")
		}
	})

	t.Run("files with a gap are refused", func(t *testing.T) {
		gap := fstest.MapFS{"migrations/0001_a.sql": files["migrations/0001_a.sql"], "migrations/0003_c.sql": files["migrations/0003_c.sql"]}
		if _, err := migrations(gap); err == nil {
			t.Error("no error")
		}
	})

	t.Run("a release at work goes on while a newer one is rolled out", func(t *testing.T) {
		database := server.Database(t)
		d := open(t, testConfig(server, database))
		store := d.Store(storetest.NewPolicyID(), StoreOptions{})
		found := create(t, store)
		server.Exec(t, database, "INSERT INTO tokenward.migrations (version) VALUES (999)")
		var ours *Error
		if err := d.Check(t.Context()); !errors.As(err, &ours) || ours.Kind != SchemaNewer {
			t.Errorf("check: %v", err)
		}
		if _, err := store.Swap(t.Context(), rotate(found, time.Now())); err != nil {
			t.Errorf("swap: %v", err)
		}
	})

	t.Run("a release that a newer schema allows starts with it, and leaves it alone", func(t *testing.T) {
		conn := connect(t, server.Database(t))
		known, err := migrations(migrationFiles)
		if err != nil {
			t.Fatal(err)
		}
		more := slices.Concat(known, []string{fmt.Sprintf("-- oldest: %d\nCREATE TABLE tokenward.more (n int)", len(known))})
		if err := migrate(t.Context(), conn, more); err != nil {
			t.Fatal(err)
		}
		if err := migrate(t.Context(), conn, known); err != nil {
			t.Errorf("the release before: %v", err)
		}
		var ours *Error
		breaking := slices.Concat(more, []string{"ALTER TABLE tokenward.more ADD m int"})
		if err := migrate(t.Context(), conn, breaking); err != nil {
			t.Fatal(err)
		}
		if err := migrate(t.Context(), conn, more); !errors.As(err, &ours) || ours.Kind != SchemaNewer {
			t.Errorf("a release that the schema does not allow: %v", err)
		}
	})

	t.Run("the sessions of the first schema stay, and can be ended", func(t *testing.T) {
		database := server.Database(t)
		known, err := migrations(migrationFiles)
		if err != nil {
			t.Fatal(err)
		}
		before := open(t, testConfig(server, database))
		before.migrations = known[:1]
		old := before.Store(storetest.NewPolicyID(), StoreOptions{})
		found := create(t, old)
		now := open(t, testConfig(server, database)).Store(old.policy, StoreOptions{})
		if n, err := now.RevokeWhere(t.Context(), session.Selection{Subject: found.Subject, CreatedUntil: time.Now()}, order()); n != 1 || err != nil {
			t.Errorf("%d ended, %v", n, err)
		}
		if later := create(t, old); load(t, now, later.ID).Revoked != nil || load(t, old, found.ID).Revoked == nil {
			t.Error("the releases do not see the same")
		}
	})

	t.Run("a database that was made anew gets its schema again", func(t *testing.T) {
		database := server.Database(t)
		store := open(t, testConfig(server, database)).Store(storetest.NewPolicyID(), StoreOptions{})
		create(t, store)
		server.Exec(t, database, "DROP SCHEMA tokenward CASCADE")
		create(t, store)
	})
}
