// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/sql"
)

func testTwoRows(t *testing.T, s *server) {
	t.Helper()
	o := s.options(s.people(t))
	clock := time.Unix(1_800_000_000, 0)
	o.Now = func() time.Time { return clock }
	o.Authenticate.Query = s.query("SELECT id, phone, role FROM users WHERE id = ? OR phone <> ?")
	o.Lookup.Query = s.query("SELECT id FROM users WHERE id <> ?")
	source := open(t, o)
	if err := source.Check(t.Context()); err != nil {
		t.Fatalf("before anybody logs in nothing shows it: %v", err)
	}
	_, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1"))
	isFault(t, err, users.FaultAnswer, "authenticate.query", "more than one row")
	isFault(t, source.Check(t.Context()), users.FaultAnswer, "authenticate.query", "more than one row")
	_, err = source.Lookup(t.Context(), "alice")
	isFault(t, err, users.FaultAnswer, "lookup.query", "more than one row")
	clock = clock.Add(time.Hour)
	if err := source.Check(t.Context()); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}

func testMistakes(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	for name, test := range map[string]struct {
		change func(*sql.Options)
		fault  users.Fault
		says   []string
	}{
		"no such table": {func(o *sql.Options) {
			o.Authenticate.Query = s.query("SELECT id FROM people WHERE id = ? AND phone = ?")
		}, users.FaultSchema, []string{"authenticate.query", "table that the database does not have"}},
		"no such table, lookup": {func(o *sql.Options) { o.Lookup.Query = s.query("SELECT id FROM people WHERE id = ?") }, users.FaultSchema, []string{"lookup.query", "table that"}},
		"no such column":        {func(o *sql.Options) { o.Lookup.Query = s.query("SELECT id, rank_of FROM users WHERE id = ?") }, users.FaultSchema, []string{"lookup.query", "column that the table does not have", "rank_of"}},
		"a query that is none":  {func(o *sql.Options) { o.Lookup.Query = s.query("SELEKT id FROM users WHERE id = ?") }, users.FaultSchema, []string{"lookup.query", "does not understand it", "SELEKT"}},
		"two statements":        {func(o *sql.Options) { o.Lookup.Query = s.query("SELECT id FROM users WHERE id = ?; DROP TABLE users") }, users.FaultSchema, []string{"lookup.query", "does not understand it"}},
		"too many placeholders": {func(o *sql.Options) { o.Lookup.Query = s.query("SELECT id FROM users WHERE id = ? AND phone = ?") }, users.FaultSchema, []string{"lookup.query", "2 placeholders", "1 parameter"}},
		"too few placeholders":  {func(o *sql.Options) { o.Authenticate.Query = s.query("SELECT id FROM users WHERE id = ?") }, users.FaultSchema, []string{"authenticate.query", "1 placeholders", "2 parameters"}},
		"no placeholder":        {func(o *sql.Options) { o.Lookup.Query = "SELECT id FROM users" }, users.FaultSchema, []string{"lookup.query", "0 placeholders"}},
		"no subject": {func(o *sql.Options) {
			o.Authenticate.Query = s.query("SELECT phone, id AS name FROM users WHERE id = ? AND phone = ?")
		}, users.FaultAnswer, []string{"authenticate.query", `column "id"`}},
		"no subject, lookup":      {func(o *sql.Options) { o.Lookup.Query = s.query("SELECT role FROM users WHERE id = ?") }, users.FaultAnswer, []string{"lookup.query", `column "id"`}},
		"subject of another name": {func(o *sql.Options) { o.Subject = "uid" }, users.FaultAnswer, []string{`column "uid"`}},
		"no password column": {func(o *sql.Options) {
			*o = s.withPassword(*o)
			o.Authenticate.Query = s.query("SELECT id FROM users WHERE id = ?")
		}, users.FaultAnswer, []string{"authenticate.query", `column "password"`}},
		"a column twice": {func(o *sql.Options) {
			o.Lookup.Query = s.query("SELECT id, role AS r, phone AS r FROM users WHERE id = ?")
		}, users.FaultAnswer, []string{"lookup.query", `column "r" twice`}},
	} {
		t.Run(name, func(t *testing.T) {
			o := s.options(database)
			test.change(&o)
			source := open(t, o)
			isFault(t, source.Check(t.Context()), test.fault, test.says...)
			if !test.fault.Misconfigured() {
				t.Error("nobody would be told")
			}
			// The same without Check having been there first.
			source = open(t, o)
			fields := byPhone("alice", "+82 10 1")
			if o.Authenticate.Password != nil {
				fields = byPassword("alice", "wonderland")
			}
			_, loginErr := source.Authenticate(t.Context(), fields)
			_, lookupErr := source.Lookup(t.Context(), "alice")
			if strings.HasPrefix(test.says[0], "lookup") {
				isFault(t, lookupErr, test.fault, test.says...)
			} else {
				isFault(t, loginErr, test.fault, test.says...)
			}
		})
	}
	source := open(t, s.options(database))
	if _, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1")); err != nil {
		t.Errorf("afterwards the table is as it was: %v", err)
	}
}

// The account may write, but Check keeps it from doing so.
func testWrites(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	for name, change := range map[string]func(*sql.Options){
		"lookup.query": func(o *sql.Options) { o.Lookup.Query = s.query("DELETE FROM users WHERE id = ? RETURNING id") },
		"authenticate.query": func(o *sql.Options) {
			o.Authenticate.Query = s.query("DELETE FROM users WHERE id = ? AND phone = ? RETURNING id, phone")
		},
	} {
		o := s.options(database)
		change(&o)
		isFault(t, open(t, o).Check(t.Context()), users.FaultSchema, name, "must only read")
	}
}

func testLookupOfSomethingElse(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	s.exec(t, database, "INSERT INTO users VALUES ('eve', 'alice', NULL, 'guest', FALSE)")
	o := s.options(database)
	o.Lookup.Query = s.query("SELECT id FROM users WHERE phone = ?")
	source := open(t, o)
	_, err := source.Lookup(t.Context(), "alice")
	isFault(t, err, users.FaultAnswer, "lookup.query", "another subject", `"id"`)
}

func testLarge(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	for name, text := range map[string]string{
		"one value of 8 MB": "SELECT id, REPEAT('x', 8000000) AS big FROM users WHERE id = ?",
		"a million rows":    "SELECT u.id, a.id AS a, REPEAT('x', 10000) AS b FROM users u, users a, users b, users c, users d, users e, users f WHERE u.id = ?",
	} {
		t.Run(name, func(t *testing.T) {
			o := s.options(database)
			o.Lookup.Query = s.query(text)
			_, err := open(t, o).Lookup(t.Context(), "alice")
			var unavailable *users.UnavailableError
			if !errors.As(err, &unavailable) || unavailable.Fault != users.FaultAnswer {
				t.Errorf("got %v", err)
			}
			keepsSecrets(t, err)
		})
	}
}

func testSlow(t *testing.T, s *server) {
	t.Helper()
	o := s.options(s.people(t))
	o.QueryTimeout = time.Second
	o.MaxConnections = 2
	sleep := "pg_sleep(60)::text"
	if s.driver == sql.MySQL {
		sleep = "SLEEP(60)"
	}
	o.Lookup.Query = s.query("SELECT id, " + sleep + " AS s FROM users WHERE id = ?")
	source := open(t, o)
	var wg sync.WaitGroup
	for range 6 { // more than there are connections: waiting for one is bounded too
		wg.Go(func() {
			_, err := source.Lookup(t.Context(), "alice")
			isFault(t, err, users.FaultTimeout, "lookup.query", "in time")
		})
	}
	wg.Wait()
	if _, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1")); err != nil {
		t.Errorf("the others afterwards: %v", err)
	}
}

func testCancel(t *testing.T, s *server) {
	t.Helper()
	source := open(t, s.options(s.people(t)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := source.Lookup(ctx, "alice")
	if !errors.Is(err, context.Canceled) || errors.Is(err, users.ErrNoUser) {
		t.Errorf("got %v", err)
	}
	if _, err := source.Lookup(t.Context(), "alice"); err != nil {
		t.Errorf("the next caller: %v", err)
	}
}

func testAccess(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	grantable := map[sql.Driver][]string{
		sql.Postgres: {"CREATE ROLE reader" + canary + " LOGIN PASSWORD '" + canary + "'"},
		sql.MySQL:    {"CREATE USER 'reader" + canary + "'@'%' IDENTIFIED BY '" + canary + "'", "GRANT SELECT (phone) ON " + database + ".users TO 'reader" + canary + "'@'%'"},
	}
	s.exec(t, database, grantable[s.driver]...)
	for name, test := range map[string]struct {
		user, pass, database string
		fault                users.Fault
		says                 string
	}{
		"wrong password":    {s.user, canary, database, users.FaultCredentials, "refuses the user or the password"},
		"no such account":   {"nobody" + canary, canary, database, users.FaultCredentials, "refuses the user or the password"},
		"no such database":  {s.user, s.password, "nowhere" + canary, users.FaultSchema, "the database does not exist"},
		"no right to read":  {"reader" + canary, canary, database, users.FaultSchema, "grant SELECT"},
		"another's columns": {"reader" + canary, canary, database, users.FaultSchema, "authenticate.query"},
	} {
		t.Run(name, func(t *testing.T) {
			o := s.options(database)
			o.DSN = users.NewCredential(s.dsn(test.user, test.pass, test.database))
			source := open(t, o)
			isFault(t, source.Check(t.Context()), test.fault, test.says)
			_, err := source.Authenticate(t.Context(), byPhone("alice", canary))
			isFault(t, err, test.fault, test.says)
			_, err = source.Lookup(t.Context(), canary)
			isFault(t, err, test.fault)
		})
	}
}

func testPlaceholdersOfTheOther(t *testing.T, s *server) {
	t.Helper()
	o := s.options(s.people(t))
	placeholder := map[sql.Driver]string{sql.Postgres: "?", sql.MySQL: "$1"}[s.driver]
	says := map[sql.Driver]string{sql.Postgres: "placeholders are $1, $2", sql.MySQL: "placeholders are ?"}[s.driver]
	for _, query := range []string{"SELECT id FROM users WHERE id = " + placeholder, "SELECT id FROM users WHERE '" + placeholder + "' = id"} {
		o.Lookup.Query = query
		isFault(t, open(t, o).Check(t.Context()), users.FaultSchema, "lookup.query", says)
	}
	o.Lookup.Query = s.query("SELECT rank_of FROM users WHERE id = ?")
	if err := open(t, o).Check(t.Context()); err == nil || strings.Contains(err.Error(), "placeholders") {
		t.Errorf("with its own: %v", err)
	}
}

func testMissingRight(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	grants := map[sql.Driver][]string{
		sql.Postgres: {"CREATE ROLE looker" + canary + " LOGIN PASSWORD '" + canary + "'", "GRANT SELECT ON users TO looker" + canary},
		sql.MySQL:    {"CREATE USER 'looker" + canary + "'@'%' IDENTIFIED BY '" + canary + "'", "GRANT SELECT ON " + database + ".users TO 'looker" + canary + "'@'%'"},
	}
	s.exec(t, database, grants[s.driver]...)
	s.exec(t, database, "CREATE TABLE hidden (id VARCHAR(64))")
	lacks := map[sql.Driver]string{sql.Postgres: "permission denied for table hidden", sql.MySQL: "lacks a right, DELETE"}
	queries := map[sql.Driver]string{sql.Postgres: "SELECT id FROM hidden WHERE id = ?", sql.MySQL: "DELETE FROM users WHERE id = ? RETURNING id"}
	o := s.options(database)
	o.DSN = users.NewCredential(s.dsn("looker"+canary, canary, database))
	o.Lookup.Query = s.query(queries[s.driver])
	isFault(t, open(t, o).Check(t.Context()), users.FaultSchema, "lookup.query", "lacks a right", lacks[s.driver], "nothing but read")
}

// While the server is away the answer is an outage, never "no such user", and
// afterwards all is as before.
func testRestart(t *testing.T, s *server) {
	t.Helper()
	o := s.options(s.people(t))
	o.QueryTimeout = 2 * time.Second
	source := open(t, o)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := source.Lookup(t.Context(), "alice")
				switch {
				case errors.Is(err, users.ErrNoUser), errors.Is(err, users.ErrDisabled), err == nil && got.Subject != "alice":
					t.Errorf("a verdict on the user: %v, %v", got, err)
					return
				case err != nil:
					keepsSecrets(t, err)
				}
			}
		})
	}
	for range 2 {
		s.stop()
		s.start(t)
	}
	close(stop)
	wg.Wait()
	for range 20 {
		if _, err := source.Lookup(t.Context(), "alice"); err == nil {
			return
		}
	}
	t.Error("no lookup succeeds after the restart")
}
