// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/internal/users/sql"
)

func TestPostgreSQL(t *testing.T) { suite(t, postgres(t)) }

func TestMariaDB(t *testing.T) { suite(t, mariadb(t)) }

// suite is what must hold with every database.
func suite(t *testing.T, s *server) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *server){
		"login by id and phone number":                testPhone,
		"login by id and password":                    testPassword,
		"every kind of no computes one hash":          testEqualWork,
		"no text is more than a value":                testHostile,
		"lookup":                                      testLookup,
		"two rows let nobody in":                      testTwoRows,
		"mistakes in queries are told":                testMistakes,
		"a query that writes":                         testWrites,
		"no query writes":                             testWritesNothing,
		"placeholders of the other":                   testPlaceholdersOfTheOther,
		"a right that is missing":                     testMissingRight,
		"a lookup of something else is a mistake":     testLookupOfSomethingElse,
		"a full queue is busy and no verdict":         testBusy,
		"a table that changes is followed":            testChangedTable,
		"an answer that is too large":                 testLarge,
		"a query that takes too long":                 testSlow,
		"a caller that gives up":                      testCancel,
		"accounts, databases and tables that are off": testAccess,
		"hundreds of logins at the same time":         testMany,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
	t.Run("restarts", func(t *testing.T) { // last: they disturb all others
		testAllConnectionsCut(t, s)
		testRestart(t, s)
	})
}

func testPhone(t *testing.T, s *server) {
	t.Helper()
	source := open(t, s.options(s.people(t)))
	if err := source.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1"))
	want := users.User{Subject: "alice", Attributes: map[string]any{"id": "alice", "phone": "+82 10 1", "role": "admin"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatalf("alice: %v\n%s", err, diff)
	}
	for name, fields := range map[string]map[string]string{
		"wrong phone":             byPhone("alice", "+82 10 2"),
		"another user's":          byPhone("alice", "+82 10 2"),
		"no such user":            byPhone("mallory", "+82 10 1"),
		"disabled":                byPhone("bob", "+82 10 2"),
		"an empty phone for none": byPhone("carol", ""),
		"an empty id":             byPhone("", "+82 10 1"),
	} {
		t.Run(name, func(t *testing.T) {
			user, err := source.Authenticate(t.Context(), fields)
			isNoUser(t, user, err)
		})
	}
	var invalid *users.InvalidFieldsError
	if _, err := source.Authenticate(t.Context(), byPassword("alice", "x")); !errors.As(err, &invalid) {
		t.Errorf("other fields: %v", err)
	} else if diff := cmp.Diff(&users.InvalidFieldsError{Missing: []string{"phone"}, Unknown: []string{"password"}, Expected: []string{"id", "phone"}}, invalid); diff != "" {
		t.Error(diff)
	}
}

func testPassword(t *testing.T, s *server) {
	t.Helper()
	o := s.withPassword(s.options(s.people(t)))
	o.Authenticate.Query = s.query("SELECT * FROM users WHERE id = ?")
	o.Lookup.Query = s.query("SELECT * FROM users WHERE id = ?")
	source := open(t, o)
	want := users.User{Subject: "alice", Attributes: map[string]any{"id": "alice", "phone": "+82 10 1", "role": "admin"}}
	got, err := source.Authenticate(t.Context(), byPassword("alice", "wonderland"))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatalf("alice, without the password: %v\n%s", err, diff)
	}
	got, err = source.Lookup(t.Context(), "alice")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatalf("lookup, without the password: %v\n%s", err, diff)
	}
	if got, err := source.Lookup(t.Context(), "dave"); err != nil || fmt.Sprint(got) != fmt.Sprint(users.User{Subject: "dave", Attributes: map[string]any{"id": "dave", "phone": "+82 10 4", "role": "guest"}}) {
		t.Errorf("a password that is no hash must not leave either: %v, %v", got, err)
	}
}

// What is equal in all kinds of "no" is the work.
func testEqualWork(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	o := s.withPassword(s.options(database))
	hasher := &counter{pool: password.NewPool(4, 100, nil)}
	o.Hasher = hasher
	source := open(t, o)
	if user, err := source.Authenticate(t.Context(), byPassword("mallory", "x")); err == nil {
		t.Fatalf("%v", user)
	}
	if got := hasher.take(); len(got) != 1 || got[0] != password.DefaultCost() {
		t.Errorf("before any hash was seen: %+v", got)
	}
	if _, err := source.Authenticate(t.Context(), byPassword("alice", "wonderland")); err != nil {
		t.Fatal(err)
	}
	hasher.take()
	cheap := password.Cost{BcryptCost: bcrypt.MinCost}
	for name, fields := range map[string]map[string]string{
		"wrong password":           byPassword("alice", "x"),
		"empty password":           byPassword("alice", ""),
		"the hash itself":          byPassword("alice", hash(t, "wonderland")),
		"no such user":             byPassword("mallory", "wonderland"),
		"empty id":                 byPassword("", "wonderland"),
		"NUL in the id":            byPassword("alice\x00", "wonderland"),
		"disabled, right password": byPassword("bob", "builder"),
		"disabled, wrong password": byPassword("bob", "x"),
		"NULL for a password":      byPassword("carol", ""),
		"NULL, and any password":   byPassword("carol", "x"),
		"password in plain":        byPassword("dave", "plain-"+canary),
	} {
		t.Run(name, func(t *testing.T) {
			user, err := source.Authenticate(t.Context(), fields)
			isNoUser(t, user, err)
			if got := hasher.take(); len(got) != 1 || got[0] != cheap {
				t.Errorf("hashes %+v, want one that costs what others' do", got)
			}
			about := fields["id"]
			if strings.HasPrefix(about, "mallory") || strings.Contains(about, "\x00") {
				about = ""
			}
			if got := users.SubjectOf(err); got != about {
				t.Errorf("the login was about %q, want %q", got, about)
			}
		})
	}
	// What a collation takes for one user is counted as one.
	_, err := source.Authenticate(t.Context(), byPassword("ALICE", "x"))
	if got, want := users.SubjectOf(err), map[sql.Driver]string{sql.MySQL: "alice"}[s.driver]; got != want {
		t.Errorf("ALICE is about %q, want %q", got, want)
	}
	hasher.take()
	report := source.Report()
	if report.Unusable != 1 || !strings.Contains(report.Reason, "not an argon2id hash") || strings.Contains(report.Reason, canary) {
		t.Errorf("report %+v, want the one user whose password is no hash", report)
	}
	// Who logs in often does not decide what a dummy costs.
	s.exec(t, database, "INSERT INTO users VALUES ('erin', '1', '"+hash(t, "e")+"', NULL, NULL)",
		"INSERT INTO users VALUES ('frank', '1', '"+password.Hash("f")+"', NULL, NULL)")
	for _, fields := range []map[string]string{byPassword("erin", "e"), byPassword("frank", "f"), byPassword("frank", "f"), byPassword("frank", "f")} {
		if _, err := source.Authenticate(t.Context(), fields); err != nil {
			t.Fatal(err)
		}
	}
	hasher.take()
	if _, err := source.Authenticate(t.Context(), byPassword("mallory", "x")); err == nil {
		t.Fatal("no error")
	}
	if got := hasher.take(); len(got) != 1 || got[0] != cheap {
		t.Errorf("two users have bcrypt and one argon2id, but the dummy was %+v", got)
	}
}

func testHostile(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	source := open(t, s.options(database))
	passwords := open(t, s.withPassword(s.options(database)))
	for _, text := range []string{
		"' OR '1'='1", "alice' -- ", "alice'; DROP TABLE users; -- ", `alice\`, `\' OR 1=1 -- `, "alice' /*", "%", "_____", "ali%",
		"alice\x00", "alice\xff", "\xed\xa0\x80", "0", "0x616c696365", "$1", "?", "NULL", "(SELECT 'alice')", "alice\n", strings.Repeat("a", 60_000), "\u202ealice",
	} {
		user, err := source.Authenticate(t.Context(), byPhone("alice", text))
		isNoUser(t, user, err)
		user, err = source.Authenticate(t.Context(), byPhone(text, "+82 10 1"))
		isNoUser(t, user, err)
		user, err = passwords.Authenticate(t.Context(), byPassword(text, "wonderland"))
		isNoUser(t, user, err)
	}
	if _, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1")); err != nil {
		t.Errorf("afterwards alice: %v", err)
	}
}

func testLookup(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	source := open(t, s.options(database))
	if got, err := source.Lookup(t.Context(), "alice"); err != nil || got.Subject != "alice" || got.Attributes["role"] != "admin" {
		t.Errorf("alice: %v, %v", got, err)
	}
	if got, err := source.Lookup(t.Context(), "bob"); !errors.Is(err, users.ErrDisabled) || got.Subject != "" {
		t.Errorf("bob, who is disabled: %v, %v", got, err)
	}
	if got, err := source.Lookup(t.Context(), "carol"); err != nil || cmp.Diff(map[string]any{"id": "carol", "phone": ""}, got.Attributes) != "" {
		t.Errorf("carol, whose NULLs are absent: %v, %v", got, err)
	}
	user, err := source.Lookup(t.Context(), "mallory")
	isNoUser(t, user, err)
	s.exec(t, database, "UPDATE users SET disabled = TRUE WHERE id = 'alice'")
	if _, err := source.Lookup(t.Context(), "alice"); !errors.Is(err, users.ErrDisabled) {
		t.Errorf("alice, disabled now: %v", err)
	}
	s.exec(t, database, "DELETE FROM users WHERE id = 'alice'")
	user, err = source.Lookup(t.Context(), "alice")
	isNoUser(t, user, err)
}

func testBusy(t *testing.T, s *server) {
	t.Helper()
	o := s.withPassword(s.options(s.people(t)))
	o.Hasher = &counter{err: password.ErrQueueFull}
	source := open(t, o)
	for _, id := range []string{"alice", "mallory"} {
		if _, err := source.Authenticate(t.Context(), byPassword(id, "wonderland")); !errors.Is(err, users.ErrBusy) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func testChangedTable(t *testing.T, s *server) {
	t.Helper()
	database := s.people(t)
	o := s.options(database)
	o.Lookup.Query = s.query("SELECT * FROM users WHERE id = ?")
	source := open(t, o)
	for _, column := range []string{"", "added", "another"} {
		if column != "" {
			s.exec(t, database, "ALTER TABLE users ADD COLUMN "+column+" VARCHAR(10) DEFAULT 'new'")
		}
		for range 5 { // on whichever connections
			got, err := source.Lookup(t.Context(), "alice")
			if err != nil || column != "" && got.Attributes[column] != "new" {
				t.Fatalf("with column %q: %v, %v", column, got, err)
			}
		}
	}
}

func testMany(t *testing.T, s *server) {
	t.Helper()
	o := s.options(s.people(t))
	o.MaxConnections = 4
	source := open(t, o)
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			if i%2 == 0 {
				if got, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 1")); err != nil || got.Subject != "alice" {
					t.Errorf("alice: %v, %v", got, err)
				}
				return
			}
			user, err := source.Authenticate(t.Context(), byPhone("alice", "+82 10 2"))
			isNoUser(t, user, err)
		})
	}
	wg.Wait()
}
