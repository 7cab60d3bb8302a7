// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sql is the user source that asks a PostgreSQL, MySQL or MariaDB database
// (design section 7). The policy brings two queries:
//
//	authenticate: SELECT id, role, disabled, password FROM users WHERE id = $1 AND phone = $2
//	lookup:       SELECT id, role, disabled FROM users WHERE id = $1
//
// Exactly one row is a user, none is no user, and two are a mistake in the query that
// lets nobody in. The row's columns are the user's attributes, but for three: the
// subject's column (id), which both queries return, the password's, which holds a
// hash and never leaves the package, and "disabled".
//
// Queries are prepared statements and what a login presents are their parameters,
// always. Without a password column the query itself is the whole proof: it must
// compare every field.
//
// It owns what a DSN may ask for, what a row means, and the rule that no kind of "no"
// can be told from another. Where connections may go is decided by the dialler that
// it is given, hashing is the job of a [Hasher].
package sql
