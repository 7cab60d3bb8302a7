// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"context"
	databasesql "database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/password"
)

// dialer is the shape of outbound.Guard's DialContext.
type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

const (
	// maxExchange is how many bytes a server may send until it is asked the next thing.
	// A row about one user is far smaller.
	maxExchange = 1 << 20

	// Connections that nobody uses are closed after a while, and all are renewed now
	// and then, so that a database behind a name that moved is followed.
	maxIdleTime = 5 * time.Minute
	maxLifetime = 30 * time.Minute
)

// Source is a [users.Source] over one database.
type Source struct {
	db     *databasesql.DB
	hasher Hasher
	// fields of a login beside id.
	fields     []string
	parameters []string
	password   *Password
	numeric    bool // the database may compare text with numbers
	timeout    time.Duration
	now        func() time.Time

	authenticate, lookup      *query
	authenticating, lookingUp layout
	costs                     costs
	lastMistake               atomic.Pointer[seen]
}

// seen is a mistake that only a user's row could show.
type seen struct {
	err error
	at  time.Time
}

var (
	_ users.Source       = (*Source)(nil)
	_ users.FieldChecker = (*Source)(nil)
)

// New makes a source. It does not connect yet. An error is a mistake in the options:
// it begins with the option's name in the policy and quotes nothing of the DSN. One in
// the DSN or the CA is a [*users.CredentialError].
func New(options Options) (*Source, error) {
	o, err := options.complete()
	if err != nil {
		return nil, err
	}
	var connector driver.Connector
	cuts, lost := &atomic.Int64{}, &losses{}
	dial := outbound.Capped(o.Dial, maxExchange, func() { cuts.Add(1) })
	switch o.Driver {
	case Postgres:
		connector, err = postgresConnector(o, dial, lost)
	case MySQL:
		connector, err = mysqlConnector(o, dial)
	default:
		return nil, fmt.Errorf("driver: %q is not one: write %s or %s", o.Driver, Postgres, MySQL)
	}
	if err != nil {
		return nil, &users.CredentialError{Text: err.Error()}
	}
	db := databasesql.OpenDB(connector)
	db.SetMaxOpenConns(o.MaxConnections)
	db.SetMaxIdleConns(o.MaxConnections)
	db.SetConnMaxIdleTime(maxIdleTime)
	db.SetConnMaxLifetime(maxLifetime)
	s := &Source{
		db: db, hasher: o.Hasher, fields: o.fields(), parameters: slices.Clone(o.Authenticate.Parameters),
		numeric: o.Driver == MySQL, timeout: o.QueryTimeout, now: o.Now,
		authenticate:   &query{db: db, cuts: cuts, lost: lost, name: "authenticate", text: o.Authenticate.Query, parameters: len(o.Authenticate.Parameters), hint: placeholderHint(o.Driver, o.Authenticate.Query)},
		lookup:         &query{db: db, cuts: cuts, lost: lost, name: "lookup", text: o.Lookup.Query, parameters: 1, hint: placeholderHint(o.Driver, o.Lookup.Query)},
		authenticating: layout{subject: o.Subject},
		lookingUp:      layout{subject: o.Subject},
	}
	switch {
	case o.Authenticate.Password != nil:
		p := *o.Authenticate.Password
		s.password, s.authenticating.password = &p, p.Column
		s.lookingUp.hidden = p.Column
	case s.numeric:
		s.authenticating.compared = s.parameters
	}
	return s, nil
}

// Close ends the connections. Queries that run are waited for; later ones are an
// outage to their callers.
func (s *Source) Close() {
	_ = s.db.Close() // fails for connections that are broken already, which is all the same
}

// Authenticate implements [users.Source]. With a password exactly one hash is computed,
// whatever the query has found.
func (s *Source) Authenticate(ctx context.Context, fields map[string]string) (users.User, error) {
	if err := s.CheckFields(fields); err != nil {
		return users.User{}, err
	}
	found, err := s.find(ctx, fields)
	if err != nil {
		return users.User{}, s.remember(err)
	}
	proven, err := s.verify(ctx, found, fields)
	if err != nil {
		return users.User{}, err
	}
	switch {
	case found == nil:
		return users.User{}, users.ErrNoUser
	case !proven, found.disabled:
		return users.User{}, users.NoUser(found.subject)
	}
	return users.User{Subject: found.subject, Attributes: found.attributes}, nil
}

// CheckFields implements [users.FieldChecker].
func (s *Source) CheckFields(fields map[string]string) error {
	return users.CheckFields(fields, s.fields)
}

// find runs the query of a login. It returns nil when there is no such user.
func (s *Source) find(ctx context.Context, fields map[string]string) (*record, error) {
	arguments := make([]any, len(s.parameters))
	for i, name := range s.parameters {
		// Nothing is proven by a field that is empty, though a column may be empty too.
		// The others are no text that a database can hold.
		if value := fields[name]; value == "" || strings.ContainsRune(value, 0) || !utf8.ValidString(value) {
			return nil, nil //nolint:nilnil // no user and no error
		}
		arguments[i] = fields[name]
	}
	row, err := s.run(ctx, s.authenticate, s.authenticating, arguments)
	switch {
	case errors.Is(err, errValue) && s.numeric && isASCII(arguments):
		return nil, mistake(users.FaultSchema, "authenticate.query: compares columns of different collations")
	case errors.Is(err, errValue):
		return nil, nil //nolint:nilnil // no user and no error
	case err != nil || row == nil:
		return nil, err
	}
	if s.numeric {
		for _, name := range s.parameters {
			// MySQL compares text with a number column as numbers: "7x" equals 7, "x" equals 0.
			if number, ok := row.numbers[name]; ok && number != fields[name] {
				return nil, nil //nolint:nilnil // no user and no error
			}
		}
	}
	return row, nil
}

// isASCII: every character set of MySQL has these characters.
func isASCII(arguments []any) bool {
	for _, argument := range arguments {
		text, _ := argument.(string)
		for _, c := range []byte(text) {
			if c >= utf8.RuneSelf {
				return false
			}
		}
	}
	return true
}

// verify computes one hash, if there is a password at all: the user's or a dummy.
func (s *Source) verify(ctx context.Context, found *record, fields map[string]string) (bool, error) {
	if s.password == nil {
		return found != nil, nil
	}
	hash, usable := password.Encoded{}, false
	if found != nil {
		parsed, err := password.Parse(found.hash)
		if err == nil {
			hash, usable = parsed, true
			s.costs.saw(found.subject, parsed.Cost())
		} else if found.hash != "" { // a user without a password is nothing to mend
			s.costs.sawUnusable(found.subject, err)
		}
	}
	if !usable {
		hash = s.costs.dummy()
	}
	matches, err := s.hasher.Verify(ctx, hash, fields[s.password.Field])
	if errors.Is(err, password.ErrQueueFull) {
		return false, users.ErrBusy
	}
	return matches && usable, err
}

// Lookup implements [users.Source]. A row with another subject is a mistake in the
// query and no verdict on the user.
func (s *Source) Lookup(ctx context.Context, subject string) (users.User, error) {
	found, err := s.run(ctx, s.lookup, s.lookingUp, []any{subject})
	switch {
	case errors.Is(err, errValue):
		// The subject came out of the same table: the query compares it with something else.
		err = mistake(users.FaultSchema, "lookup.query: the subject does not fit the type that it is compared with: compare it with the column %q", s.lookingUp.subject)
	case err == nil && found != nil && found.subject != subject:
		err = mistake(users.FaultAnswer, "lookup.query: returned a row with another subject than it was asked for: compare the parameter with the column %q", s.lookingUp.subject)
	}
	switch {
	case err != nil:
		return users.User{}, s.remember(err)
	case found == nil:
		return users.User{}, users.ErrNoUser
	case found.disabled:
		return users.User{}, users.ErrDisabled
	}
	return users.User{Subject: found.subject, Attributes: found.attributes}, nil
}

// run returns nil when there is no row.
func (s *Source) run(ctx context.Context, q *query, l layout, arguments []any) (*record, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	found, err := q.run(ctx, arguments)
	if err != nil {
		return nil, err
	}
	if err := l.check(q.name, found.columns); err != nil || found.values == nil {
		return nil, err
	}
	r, err := l.understand(q.name, found)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// remember keeps a mistake for [Source.Check].
func (s *Source) remember(err error) error {
	var unavailable *users.UnavailableError
	if errors.As(err, &unavailable) && unavailable.Fault == users.FaultAnswer {
		s.lastMistake.Store(&seen{err: err, at: s.now()})
	}
	return err
}
