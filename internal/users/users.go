// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package users owns the question that the issuer asks about people: who is this,
// and is this subject still welcome. See design section 7.
//
// Where users live is a matter of the packages below it: secret reads a Kubernetes
// Secret. Hashing, with its limits, is in package password. Sessions and tokens are
// none of its business.
package users

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// IDField is the login field that names the user. Every login presents it.
const IDField = "id"

// Source knows the users of one TokenPolicy. It is safe for concurrent use.
//
// Any error but the ones named in this package means that the source cannot answer
// for now. It says nothing about the user, and nobody may be logged out because of it.
type Source interface {
	// Authenticate finds the user whom the fields of a login prove to be there.
	// Errors: [ErrNoUser], [*InvalidFieldsError], [ErrBusy].
	//
	// No such user, wrong credentials and a disabled user are one error after one
	// amount of work, so that the answer tells nobody which users exist. A source that
	// knows which user it was about says so by [NoUser].
	Authenticate(ctx context.Context, fields map[string]string) (User, error)

	// Lookup finds a user who has logged in before. Errors: [ErrNoUser] for a user
	// who was removed, [ErrDisabled].
	Lookup(ctx context.Context, subject string) (User, error)
}

// FieldChecker is a [Source] that can say without any work whether a login presents
// what it asks for. Authenticate checks the same.
type FieldChecker interface {
	// CheckFields returns nil or an [*InvalidFieldsError].
	CheckFields(fields map[string]string) error
}

// User is what a source tells about a user.
type User struct {
	// Subject is the "sub" of the user's tokens: stable, and unique in the source.
	Subject string
	// Attributes may be copied into claims: string, bool, json.Number or []any of
	// these. They never hold a password or a hash of one.
	Attributes map[string]any
	// Disabled users can neither log in nor refresh. A user who is returned without
	// an error is never disabled.
	Disabled bool
}

var (
	// ErrNoUser says that there is no such user, or the credentials are wrong, or, at a
	// login, the user is disabled. Which one is not told.
	ErrNoUser = errors.New("no such user, or wrong credentials")
	// ErrDisabled says that the user exists and is shut out. From Lookup only.
	ErrDisabled = errors.New("the user is disabled")
	// ErrBusy says that too many logins are being checked. The caller should come back later.
	ErrBusy = errors.New("too many passwords are being checked at the same time")
)

// InvalidFieldsError says that a login did not present the fields that the source
// asks for. It holds names only, no values.
type InvalidFieldsError struct {
	// Missing fields, sorted.
	Missing []string
	// Unknown fields, sorted. They are the caller's own words.
	Unknown []string
	// Expected is what a login must present, id first.
	Expected []string
}

// Error names the fields that are missing and how many are unknown, but not the
// names of these: they are the caller's own words.
func (e *InvalidFieldsError) Error() string {
	var b strings.Builder
	b.WriteString("the login must present exactly the fields ")
	b.WriteString(strings.Join(e.Expected, ", "))
	if len(e.Missing) > 0 {
		b.WriteString("; missing: ")
		b.WriteString(strings.Join(e.Missing, ", "))
	}
	if len(e.Unknown) > 0 {
		b.WriteString("; it presents others too")
	}
	return b.String()
}

// CheckFields compares what a login presents with what it must present: id and
// exactly the wanted fields. It returns nil or an [*InvalidFieldsError].
func CheckFields(presented map[string]string, wanted []string) error {
	expected := append([]string{IDField}, wanted...)
	e := &InvalidFieldsError{Expected: expected}
	for _, name := range expected {
		if _, ok := presented[name]; !ok {
			e.Missing = append(e.Missing, name)
		}
	}
	for name := range presented {
		if !slices.Contains(expected, name) {
			e.Unknown = append(e.Unknown, name)
		}
	}
	if len(e.Missing) == 0 && len(e.Unknown) == 0 {
		return nil
	}
	slices.Sort(e.Missing)
	slices.Sort(e.Unknown)
	return e
}
