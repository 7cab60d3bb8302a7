// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/sql"
)

// The rights of these tests' user are all there are.
func testWritesNothing(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	o := s.options(database)
	o.Lookup.Query = s.query("DELETE FROM users WHERE id = ? RETURNING id")
	o.Authenticate.Query = s.query("DELETE FROM users WHERE id = ? AND phone = ? RETURNING id, phone")
	source := open(t, o)
	_, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1"))
	isFault(t, err, users.FaultSchema, "authenticate.query", "must only read")
	_, err = source.Lookup(t.Context(), "alice")
	isFault(t, err, users.FaultSchema, "lookup.query", "must only read")
	if _, err := open(t, s.options(database)).Lookup(t.Context(), "alice"); err != nil {
		t.Errorf("she is gone: %v", err)
	}
}

// A pool that was busy a moment ago does not look at its connections before it uses them.
func testAllConnectionsCut(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	for what, call := range map[string]func(*sql.Source) error{
		"a query that was asked before": func(source *sql.Source) error { _, err := source.Lookup(t.Context(), "alice"); return err },
		"a query that was not": func(source *sql.Source) error {
			_, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1"))
			return err
		},
		"a check": func(source *sql.Source) error { return source.Check(t.Context()) },
	} {
		o := s.options(database)
		o.MaxConnections = 6
		// Each lasts until all have begun, so that each has a connection.
		sleep := "pg_sleep(0.5)::text"
		if s.driver == sql.MySQL {
			sleep = "CONCAT('', SLEEP(0.5))"
		}
		o.Lookup.Query = s.query("SELECT id, " + sleep + " AS slept FROM users WHERE id = ?")
		source := open(t, o)
		var using sync.WaitGroup
		for range o.MaxConnections {
			using.Go(func() {
				if _, err := source.Lookup(t.Context(), "alice"); err != nil {
					t.Error(err)
				}
			})
		}
		using.Wait()
		s.stop()
		s.start(t)
		if err := call(source); err != nil {
			t.Errorf("%s is the first after a restart: %v", what, err)
		}
	}
}

// pooler is PgBouncer's way with a setting at the start: it refuses what it does not know.
func pooler(refused *atomic.Int64) func(net.Conn, net.Conn) bool {
	return func(client, server net.Conn) bool {
		backend := pgproto3.NewBackend(client, client)
		message, err := backend.ReceiveStartupMessage()
		if err != nil {
			return false
		}
		startup, ok := message.(*pgproto3.StartupMessage)
		if !ok {
			return false
		}
		if _, set := startup.Parameters["default_transaction_read_only"]; set {
			refused.Add(1)
			backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: default_transaction_read_only"})
			_ = backend.Flush()
			return false
		}
		raw, err := startup.Encode(nil)
		if err != nil {
			return false
		}
		_, err = server.Write(raw)
		return err == nil
	}
}

func TestAPoolerThatTakesNoSettingsIsUsedWithoutThem(t *testing.T) {
	s := postgres(t)
	o := s.options(s.people(t))
	var refused atomic.Int64
	begin := pooler(&refused)
	dial := o.Dial
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		server, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ours, theirs := net.Pipe()
		go func() {
			defer func() { _ = theirs.Close(); _ = server.Close() }()
			if begin(theirs, server) {
				go func() { _, _ = io.Copy(server, theirs); _ = server.Close() }()
				_, _ = io.Copy(theirs, server)
			}
		}()
		return ours, nil
	}
	source := open(t, o)
	if err := source.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
	if _, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1")); err != nil {
		t.Errorf("login: %v", err)
	}
	if refused.Load() != 1 {
		t.Errorf("it was asked %d times", refused.Load())
	}
}

func TestAPrimaryIsFoundByASessionThatOnlyReads(t *testing.T) {
	s := postgres(t)
	database := s.people(t)
	for _, attrs := range []string{"any", "read-write", "read-only", "primary", "prefer-standby"} {
		o := s.options(database)
		o.DSN = users.NewCredential(o.DSN.Reveal() + "&target_session_attrs=" + attrs)
		if !strings.Contains(o.DSN.Reveal(), "?") {
			t.Fatal("the DSN has no options")
		}
		if _, err := open(t, o).Lookup(t.Context(), "alice"); err != nil {
			t.Errorf("%s: %v", attrs, err)
		}
	}
}
