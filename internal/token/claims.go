// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// Claims are what a token says (RFC 7519 section 4, RFC 9068 section 2.2). Those of a
// verified token share memory with the token's payload and must not be changed.
type Claims struct {
	Issuer   string   // iss
	Subject  string   // sub
	Audience []string // aud
	// ExpiresAt (exp) and IssuedAt (iat) are always there, NotBefore (nbf) may be zero. A
	// minted token holds whole seconds: fractions are cut off.
	ExpiresAt, NotBefore, IssuedAt time.Time

	ID        string // jti
	SessionID string // sid
	ClientID  string // client_id
	// Generation (gen) counts the rotations of the session, from 0.
	Generation int64

	// Extra are the other claims as decoded JSON: string, bool, nil, [json.Number], []any
	// and map[string]any. Nil when there are none. [EncodeExtra] and [DecodeExtra] keep
	// the exact form.
	Extra map[string]any
}

// registered is every claim that has a field of [Claims].
func registered() [10]string {
	return [...]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "client_id", "gen"}
}

// Strings is a claim as a list of strings. A scalar is a list of one; booleans are
// "true" and "false", numbers are as they stand in the token, times are in seconds since 1970. It
// is false for a claim that is absent, null, an object or a list with anything but scalars.
func (c Claims) Strings(name string) ([]string, bool) {
	switch name {
	case "iss":
		return present(c.Issuer)
	case "sub":
		return present(c.Subject)
	case "aud":
		return slices.Clone(c.Audience), len(c.Audience) > 0
	case "exp":
		return seconds(c.ExpiresAt)
	case "nbf":
		return seconds(c.NotBefore)
	case "iat":
		return seconds(c.IssuedAt)
	case "jti":
		return present(c.ID)
	case "sid":
		return present(c.SessionID)
	case "client_id":
		return present(c.ClientID)
	case "gen":
		return []string{strconv.FormatInt(c.Generation, 10)}, true
	}
	value, ok := c.Extra[name]
	if !ok {
		return nil, false
	}
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	out := make([]string, 0, len(list))
	for _, element := range list {
		text, ok := scalar(element)
		if !ok {
			return nil, false
		}
		out = append(out, text)
	}
	return out, true
}

func present(value string) ([]string, bool) {
	if value == "" {
		return nil, false
	}
	return []string{value}, true
}

func seconds(t time.Time) ([]string, bool) {
	if t.IsZero() {
		return nil, false
	}
	return []string{strconv.FormatInt(t.Unix(), 10)}, true
}

func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	default:
		return "", false
	}
}
