// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
)

// migrationFiles are named by the schema's version that they lead to: 0001_what.sql,
// 0002_…, without a gap. One that was released is never changed. A line "-- oldest: 1"
// says that a release of schema 1 can go on with what it makes.
//
//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrationLock is the key of the advisory lock under which a schema is changed. It
// is ours alone in a database, by its chance (and so the same in all releases).
const migrationLock = 0x746f6b656e776172

// migrations returns the files' content in their order: the first leads to version 1.
func migrations(files fs.FS) ([]string, error) {
	names, err := fs.Glob(files, "migrations/*.sql") // sorted
	if err != nil {
		return nil, fmt.Errorf("list the migrations: %w", err)
	}
	var all []string
	for i, name := range names {
		var version int
		if _, err := fmt.Sscanf(name, "migrations/%04d_", &version); err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s does not lead to version %d", name, i+1)
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read migration %s: %w", name, err)
		}
		all = append(all, string(content))
	}
	return all, nil
}

// migrate brings the schema to the version of this release. Any number of processes
// may do it at once.
func migrate(ctx context.Context, conn *pgx.Conn, all []string) error {
	version, err := usableVersion(ctx, conn, len(all))
	if err != nil || version >= len(all) {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// A migration may take longer than a statement of every day, and one that waits
		// for another process's must not give up on it.
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = 0"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return err
		}
		version, err := usableVersion(ctx, tx, len(all))
		if err != nil {
			return err
		}
		if version == 0 {
			if err := createSchema(ctx, tx); err != nil {
				return err
			}
		}
		for ; version < len(all); version++ {
			if _, err := tx.Exec(ctx, all[version]); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "INSERT INTO tokenward.migrations (version) VALUES ($1)", version+1); err != nil {
				return err
			}
			if oldest, found := oldestOf(all[version]); found {
				if _, err := tx.Exec(ctx, "UPDATE tokenward.migrations SET oldest = $2 WHERE version = $1", version+1, oldest); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// createSchema makes the schema unless an administrator has: CREATE SCHEMA IF NOT
// EXISTS asks for the right to create one also where it exists.
func createSchema(ctx context.Context, tx pgx.Tx) error {
	var exists bool
	if err := tx.QueryRow(ctx, schemaExists).Scan(&exists); err != nil {
		return err
	}
	if !exists {
		if _, err := tx.Exec(ctx, "CREATE SCHEMA tokenward"); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, "CREATE TABLE tokenward.migrations (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())")
	return err
}

// These ask the catalog's tables. Functions such as to_regclass answer from a cache,
// which may be older than the lock that we have waited for.
const (
	schemaExists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'tokenward')"
	tableExists  = `SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
		WHERE n.nspname = 'tokenward' AND c.relname = 'migrations')`
)

// versions are those of the schema, and the oldest that a release must know. The first
// schema had no column for it, which a row as JSON does not mind.
const versions = `SELECT coalesce(max(version), 0), coalesce(max(coalesce((to_jsonb(m) ->> 'oldest')::integer, version)), 0)
	FROM tokenward.migrations AS m`

// usableVersion is the schema's version, 0 where there is none. An error is also that a
// release which knows as many must leave it alone.
func usableVersion(ctx context.Context, from interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, known int,
) (version int, err error) {
	var exists bool
	if err := from.QueryRow(ctx, tableExists).Scan(&exists); err != nil || !exists {
		return 0, err
	}
	var oldest int
	if err := from.QueryRow(ctx, versions).Scan(&version, &oldest); err != nil {
		return 0, err
	}
	if oldest > known {
		return 0, newer(version, known)
	}
	return version, nil
}

// oldestOf is what a migration says about older releases.
func oldestOf(migration string) (version int, found bool) {
	for line := range strings.Lines(migration) {
		if n, err := fmt.Sscanf(line, "-- oldest: %d", &version); n == 1 && err == nil {
			return version, true
		}
	}
	return 0, false
}

func newer(version, known int) *Error {
	return &Error{Kind: SchemaNewer, message: fmt.Sprintf(
		"the schema \"tokenward\" has version %d, this release knows %d: a newer release has changed it; run that release, or use another database", version, known)}
}
