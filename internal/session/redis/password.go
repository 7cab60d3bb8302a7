// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"fmt"
	"log/slog"
)

// Password never shows itself: not in a log, an error, or JSON.
type Password struct{ value string }

// NewPassword wraps a password; empty is none.
func NewPassword(value string) Password { return Password{value: value} }

const redacted = "[redacted]"

// String is [fmt.Stringer].
func (p Password) String() string {
	if p.value == "" {
		return ""
	}
	return redacted
}

// Format is [fmt.Formatter], so that no verb reaches the value.
func (p Password) Format(state fmt.State, _ rune) { _, _ = fmt.Fprint(state, p.String()) }

// LogValue is [slog.LogValuer].
func (p Password) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText is [encoding.TextMarshaler], which JSON uses.
func (p Password) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Credentials of a Redis user (ACL, Redis 6). Without Username the password is the
// default user's (requirepass).
type Credentials struct {
	Username string
	Password Password
}
