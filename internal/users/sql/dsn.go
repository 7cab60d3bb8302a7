// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"fmt"
	"log/slog"
)

// DSN is where a database is and who we are there: it holds a password. It never
// prints.
type DSN struct{ text string }

// NewDSN wraps the text of a DSN.
//
// postgres: postgres://user:password@host:5432/database?sslmode=verify-full, or the
// keyword form. mysql: user:password@tcp(host:3306)/database?tls=true. TLS with a
// verified certificate is the default, sslmode=disable and tls=false turn it off, and
// there is nothing in between.
func NewDSN(text string) DSN { return DSN{text: text} }

const redacted = "[dsn]"

// String does not print the DSN.
func (DSN) String() string { return redacted }

// GoString does not print the DSN.
func (DSN) GoString() string { return redacted }

// Format does not print the DSN, whatever the verb.
func (DSN) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue does not log the DSN.
func (DSN) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText does not write the DSN, to JSON neither.
func (DSN) MarshalText() ([]byte, error) { return []byte(redacted), nil }
