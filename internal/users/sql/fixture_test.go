// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/internal/users/sql"
)

// canary is in every credential and parameter of these tests that no error may show.
const canary = "c4n4ry"

// server is a real database server, in the terms that both kinds share.
type server struct {
	driver sql.Driver
	// dsn of a database for a user, with or without TLS as the server has it.
	dsn func(user, password, database string) string
	// admin's user and password.
	user, password string
	database       func(t *testing.T) string
	exec           func(t *testing.T, database string, statements ...string)
	stop           func()
	start          func(t *testing.T)
	ca             []byte
}

func postgres(t *testing.T, options ...testservers.PostgresOption) *server {
	t.Helper()
	p := testservers.Postgres(t, options...)
	return &server{
		driver: sql.Postgres, dsn: p.URLFor, user: p.User, password: p.Password, ca: p.CA,
		database: func(t *testing.T) string { t.Helper(); return p.Database(t) },
		exec: func(t *testing.T, database string, statements ...string) {
			t.Helper()
			for _, statement := range statements {
				p.Exec(t, database, statement)
			}
		},
		stop: p.Stop, start: func(t *testing.T) { t.Helper(); p.Start(t) },
	}
}

func mariadb(t *testing.T, options ...testservers.MariaDBOption) *server {
	t.Helper()
	m := testservers.MariaDB(t, options...)
	return &server{
		driver: sql.MySQL, dsn: m.DSNFor, user: m.User, password: m.Password, ca: m.CA,
		database: func(t *testing.T) string { t.Helper(); return m.Database(t) },
		exec: func(t *testing.T, database string, statements ...string) {
			t.Helper()
			m.Exec(t, database, statements...)
		},
		stop: m.Stop, start: func(t *testing.T) { t.Helper(); m.Start(t) },
	}
}

// query writes placeholders as the driver has them.
func (s *server) query(text string) string {
	if s.driver == sql.MySQL {
		return text
	}
	parts := strings.Split(text, "?")
	var b strings.Builder
	for i, part := range parts {
		b.WriteString(part)
		if i < len(parts)-1 {
			fmt.Fprintf(&b, "$%d", i+1)
		}
	}
	return b.String()
}

// counter is the real pool with a count of the hashes by cost.
type counter struct {
	pool   *password.Pool
	mu     sync.Mutex
	hashes []password.Cost
	err    error
}

func (c *counter) Verify(ctx context.Context, hash password.Encoded, presented string) (bool, error) {
	c.mu.Lock()
	c.hashes = append(c.hashes, hash.Cost())
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return false, err
	}
	return c.pool.Verify(ctx, hash, presented)
}

func (c *counter) take() []password.Cost {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.hashes
	c.hashes = nil
	return taken
}

// loopback is allowed in tests, because the servers are there.
func loopback() outbound.Guard {
	return outbound.Guard{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
}

// options of the flow with id and phone number, over a database of its own.
func (s *server) options(database string) sql.Options {
	return sql.Options{
		Driver: s.driver,
		DSN:    users.NewCredential(s.dsn(s.user, s.password, database)),
		CA:     s.ca,
		Authenticate: sql.Authenticate{
			Query:      s.query("SELECT id, phone, role, disabled FROM users WHERE id = ? AND phone = ?"),
			Parameters: []string{"id", "phone"},
		},
		Lookup: sql.Lookup{Query: s.query("SELECT id, phone, role, disabled FROM users WHERE id = ?")},
		Hasher: &counter{pool: password.NewPool(4, 100, nil)},
		Dial:   loopback().DialContext,
		// The machine of a test may be busy; the tests of timeouts set their own.
		QueryTimeout: 20 * time.Second,
	}
}

// withPassword is the flow with id and password.
func (s *server) withPassword(o sql.Options) sql.Options {
	o.Authenticate = sql.Authenticate{
		Query:      s.query("SELECT id, phone, role, disabled, password FROM users WHERE id = ?"),
		Parameters: []string{"id"},
		Password:   &sql.Password{Column: "password", Field: "password"},
	}
	return o
}

func open(t *testing.T, o sql.Options) *sql.Source {
	t.Helper()
	source, err := sql.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

// people makes the table of the mission: a user has an id, a phone number, a password
// hash, a role and may be disabled.
func (s *server) people(t *testing.T) string {
	t.Helper()
	database := s.database(t)
	s.exec(t, database,
		"CREATE TABLE users (id VARCHAR(64) PRIMARY KEY, phone VARCHAR(32), password VARCHAR(200), role VARCHAR(32), disabled BOOLEAN)",
		"INSERT INTO users VALUES ('alice', '+82 10 1', '"+hash(t, "wonderland")+"', 'admin', FALSE)",
		"INSERT INTO users VALUES ('bob', '+82 10 2', '"+hash(t, "builder")+"', 'guest', TRUE)",
		"INSERT INTO users VALUES ('carol', '', NULL, NULL, NULL)",
		"INSERT INTO users VALUES ('dave', '+82 10 4', 'plain-"+canary+"', 'guest', FALSE)",
	)
	return database
}

// hash is a cheap hash: these tests are about what is computed, not how long it takes.
func hash(t *testing.T, plain string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(plain), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func byPhone(id, phone string) map[string]string {
	return map[string]string{"id": id, "phone": phone}
}

func byPassword(id, pass string) map[string]string {
	return map[string]string{"id": id, "password": pass}
}

func isNoUser(t *testing.T, user users.User, err error) {
	t.Helper()
	if !errors.Is(err, users.ErrNoUser) || err.Error() != users.ErrNoUser.Error() || user.Subject != "" {
		t.Errorf("got %v, %v; want no user", user, err)
	}
}

// isFault wants an outage of this kind that says so, and shows no secret.
func isFault(t *testing.T, err error, fault users.Fault, says ...string) {
	t.Helper()
	var unavailable *users.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Fault != fault {
		t.Errorf("got %v, want a fault of kind %s", err, fault)
		return
	}
	if errors.Is(err, users.ErrNoUser) || errors.Is(err, users.ErrDisabled) {
		t.Errorf("%v is a verdict on the user", err)
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	keepsSecrets(t, err)
}

func keepsSecrets(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{canary, "admin-of-the-test", "127.0.0.1", "localhost"} {
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, secret) {
			t.Errorf("the error shows %q: %s", secret, text)
		}
	}
}
