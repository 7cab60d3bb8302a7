// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
)

// migrationFiles are named by the schema's version that they lead to: 0001_what.sql,
// 0002_…, without a gap. One that was released is never changed.
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
	version, err := schemaVersion(ctx, conn)
	if err != nil || version == len(all) {
		return err
	}
	if version > len(all) {
		return newer(version, len(all))
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
		version, err := schemaVersion(ctx, tx)
		if err != nil {
			return err
		}
		if version > len(all) {
			return newer(version, len(all))
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

// schemaVersion is 0 where there is no schema.
func schemaVersion(ctx context.Context, from interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) (version int, err error) {
	var exists bool
	if err := from.QueryRow(ctx, tableExists).Scan(&exists); err != nil || !exists {
		return 0, err
	}
	err = from.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM tokenward.migrations").Scan(&version)
	return version, err
}

func newer(version, known int) *Error {
	return &Error{Kind: SchemaNewer, message: fmt.Sprintf(
		"the schema \"tokenward\" has version %d, this release knows %d: a newer release has changed it; run that release, or use another database", version, known)}
}
