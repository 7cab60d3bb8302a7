// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/secret"
	"github.com/tokenward/tokenward/internal/users/sql"
)

const passwordsTable = "CREATE TABLE users (id VARCHAR(64) PRIMARY KEY, password VARCHAR(200), disabled BOOLEAN)"

// peopleWithPasswords is a source of users who log in with a password.
func (w *world) peopleWithPasswords(t *testing.T, kind string, all []person, hasher sql.Hasher) users.Source {
	t.Helper()
	if kind == "secret" {
		data := secretData{}
		for _, p := range all {
			data[p.id] = fmt.Appendf(nil, `{"password": %q, "disabled": %t}`, p.hash, p.disabled)
		}
		return secret.New(secret.Options{Reader: data, Hasher: hasher, Now: time.Now})
	}
	options := sql.Options{
		Driver: sql.Postgres, Hasher: hasher, Dial: (&net.Dialer{}).DialContext, QueryTimeout: storeTimeout,
		Authenticate: sql.Authenticate{
			Query: "SELECT id, password, disabled FROM users WHERE id = $1", Parameters: []string{users.IDField},
			Password: &sql.Password{Column: "password", Field: "password"},
		},
		Lookup: sql.Lookup{Query: "SELECT id, disabled FROM users WHERE id = $1"},
	}
	statements := []string{passwordsTable}
	for _, p := range all {
		statements = append(statements, fmt.Sprintf("INSERT INTO users VALUES ('%s', '%s', %t)", p.id, p.hash, p.disabled))
	}
	if kind == "MariaDB" {
		database := w.mariadb.Database(t)
		w.mariadb.Exec(t, database, statements...)
		options.Driver, options.DSN = sql.MySQL, users.NewCredential(w.mariadb.DSN(database))
		options.Authenticate.Query = "SELECT id, password, disabled FROM users WHERE id = ?"
		options.Lookup.Query = "SELECT id, disabled FROM users WHERE id = ?"
	} else {
		database := w.postgres.Database(t)
		for _, statement := range statements {
			w.postgres.Exec(t, database, statement)
		}
		options.DSN = users.NewCredential(w.postgres.URL(database))
	}
	source, err := sql.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return source
}

// secretData is a Secret that does not change: the reading of one is no part of a
// login's time, because it is read at most once a second for all of them.
type secretData map[string][]byte

func (s secretData) ReadSecret(context.Context) (data map[string][]byte, version string, err error) {
	return s, "1", nil
}
