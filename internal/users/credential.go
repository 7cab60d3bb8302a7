// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"fmt"
	"log/slog"
)

// Credential is a secret that opens a source: a DSN, a bearer token. It never prints.
type Credential struct{ text string }

// NewCredential wraps the text of one.
func NewCredential(text string) Credential { return Credential{text: text} }

const redacted = "[credential]"

// Reveal is the text, for whom it is meant.
func (c Credential) Reveal() string { return c.text }

// String does not print the text.
func (Credential) String() string { return redacted }

// GoString does not print the text.
func (Credential) GoString() string { return redacted }

// Format does not print the text, whatever the verb.
func (Credential) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue does not log the text.
func (Credential) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText does not write the text, to JSON neither.
func (Credential) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// CredentialError says that a source cannot be opened because of what the Secret with
// its credentials holds, and not because of the policy. It begins with the key of the
// Secret and quotes nothing of a value.
type CredentialError struct{ Text string }

// Error is the text.
func (e *CredentialError) Error() string { return e.Text }
