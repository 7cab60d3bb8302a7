// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/password"
)

// Driver is the kind of database.
type Driver string

// Drivers. MySQL is for MariaDB too.
const (
	Postgres Driver = "postgres"
	MySQL    Driver = "mysql"
)

const (
	// DefaultSubject is the column of the subject.
	DefaultSubject = "id"
	// DefaultQueryTimeout is the most time that a query takes, with the wait for a
	// connection and the making of one.
	DefaultQueryTimeout = 3 * time.Second
	// DefaultMaxConnections of one source.
	DefaultMaxConnections = 8

	disabledColumn = "disabled"
)

// Hasher verifies a password against a hash. [password.Pool] is the real one.
type Hasher interface {
	Verify(ctx context.Context, hash password.Encoded, presented string) (bool, error)
}

// Authenticate is the query of a login.
type Authenticate struct {
	// Query with placeholders: $1, $2 … for postgres, ? for mysql.
	Query string
	// Parameters are the fields of a login that the placeholders stand for, in their
	// order; id must be among them. A field may occur more than once.
	Parameters []string
	// Password is nil when the query itself compares everything.
	Password *Password
}

// Password is a field of a login that is verified here and never sent to the
// database.
type Password struct {
	// Column with an argon2id or bcrypt hash. It is no attribute.
	Column string
	// Field of the login.
	Field string
}

// Lookup is the query of a refresh.
type Lookup struct {
	// Query with one placeholder, for the subject.
	Query string
}

// Options of a [Source]. Driver, DSN, the queries, Hasher and Dial are required.
type Options struct {
	Driver Driver
	// DSN is where the database is and who we are there.
	//
	// postgres: postgres://user:password@host:5432/database?sslmode=verify-full, or the
	// keyword form. mysql: user:password@tcp(host:3306)/database?tls=true. TLS with a
	// verified certificate is the default, sslmode=disable and tls=false turn it off, and
	// there is nothing in between.
	DSN users.Credential
	// CA is a bundle in PEM that the server's certificate must come from; the
	// system's when empty.
	CA           []byte
	Authenticate Authenticate
	Lookup       Lookup
	// Subject is the column of both queries that becomes the "sub" of tokens;
	// [DefaultSubject] when empty. Text or a whole number, never NULL.
	Subject string
	Hasher  Hasher
	// Dial makes the connections: outbound.Guard's DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// QueryTimeout is [DefaultQueryTimeout] when zero.
	QueryTimeout time.Duration
	// MaxConnections is [DefaultMaxConnections] when zero.
	MaxConnections int
	// Now is time.Now when nil.
	Now func() time.Time
}

// complete fills in defaults. Its errors begin with the field and quote no secret.
func (o Options) complete() (Options, error) {
	if o.Subject == "" {
		o.Subject = DefaultSubject
	}
	if o.QueryTimeout == 0 {
		o.QueryTimeout = DefaultQueryTimeout
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, o.validate()
}

func (o Options) validate() error {
	parameters, pass := o.Authenticate.Parameters, o.Authenticate.Password
	switch {
	case o.Hasher == nil || o.Dial == nil:
		return errors.New("open the user database: hasher and dial must be set")
	case o.QueryTimeout < 0 || o.MaxConnections < 0:
		return errors.New("open the user database: the timeout and the number of connections must be positive")
	case strings.TrimSpace(o.Authenticate.Query) == "":
		return errors.New("authenticate.query: is empty: write a SELECT that finds the user of a login")
	case strings.TrimSpace(o.Lookup.Query) == "":
		return errors.New("lookup.query: is empty: write a SELECT that finds a user by the subject")
	case !slices.Contains(parameters, users.IDField):
		return fmt.Errorf("authenticate.parameters: %q is missing: every login presents it, so the query must use it", users.IDField)
	case o.Subject == disabledColumn:
		return fmt.Errorf("subject: %q has a meaning of its own: name the column that identifies the user", o.Subject)
	case pass == nil:
		return nil
	case pass.Column == "" || pass.Field == "":
		return errors.New("authenticate.password: column and field must both be set")
	case slices.Contains(parameters, pass.Field):
		return fmt.Errorf("authenticate.password.field: %q is a parameter too: a password is verified here and not sent to the database", pass.Field)
	case pass.Column == o.Subject || pass.Column == disabledColumn:
		return fmt.Errorf("authenticate.password.column: %q is another column already", pass.Column)
	}
	return nil
}

// fields of a login beside id, each once.
func (o Options) fields() []string {
	var fields []string
	for _, name := range o.Authenticate.Parameters {
		if name != users.IDField && !slices.Contains(fields, name) {
			fields = append(fields, name)
		}
	}
	if o.Authenticate.Password != nil {
		fields = append(fields, o.Authenticate.Password.Field)
	}
	return fields
}

// roots are the certificates to trust; nil for the system's.
func (o Options) roots() (*x509.CertPool, error) {
	if len(o.CA) == 0 {
		return nil, nil //nolint:nilnil // what crypto/tls takes for "the system's"
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(o.CA) {
		return nil, errors.New("ca.crt: holds no certificate in PEM form")
	}
	return pool, nil
}
