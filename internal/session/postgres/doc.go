// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package postgres keeps sessions in a PostgreSQL database that somebody else runs.
//
// It owns its schema ("tokenward") with its migrations, the connections, the stream of
// revocations and the removal of dead sessions. It leaves the Secret with the address
// and the password to its caller: when they change, the caller opens a new [Database].
//
// A [Database] is what is shared: a pool of connections, one more that listens, and a
// slow sweep. A [Store] is one policy's view of it.
//
// # Refresh
//
// Load is one SELECT and Swap one conditional UPDATE, each by itself a transaction of
// isolation "read committed". An UPDATE that meets another one waits for it, looks at
// the row again, and finds that its version has moved on. There is no lock that a
// process could take to its grave.
//
// When a connection breaks before the answer has come, the UPDATE may have been made.
// Each call writes a version of its own, and a row has the version before it: so the
// call is made again, and finds its version there if it had been made.
//
// Only a primary is good for it: a standby lags, and a session that it has not heard
// of yet would be logged out. Connections to one are refused, and each Load asks the
// server again, as a proxy may have moved the connection.
//
// # Revocations
//
// A revoked session's own row is the record of it, with a number that the stream and
// its cursors go by. A sequence would not do: numbers are taken in one order and
// committed in another, so a reader that has seen 8 may never see a 7 that commits
// later. The number is taken from the policy's row in "policies", whose lock is held
// until the revocation is committed. Whoever sees a number therefore sees all below
// it. It is the time in milliseconds, or one more than the last: so it grows also
// over a database that was restored from a backup.
//
// NOTIFY only wakes. What is sent is read from the table, after the last number. Every
// reconnect and every [Config].PollInterval looks for itself, so that a notification
// that was lost costs time and nothing else.
//
// # Migrations
//
// The files in migrations are run in order, in one transaction under an advisory
// lock, by whoever comes first. The runner is sixty lines; a library for it would bring
// database/sql, drivers and a command line, and would not refuse what we have to refuse:
// a schema that is newer than this release, which may mean something by a column that
// this release would write wrongly.
//
// # Dead sessions
//
// No index has keep_until: it changes with every refresh, and PostgreSQL updates a row
// in place (HOT) only when no indexed column changes. The sweep walks the primary key
// instead, a page at a time.
package postgres
