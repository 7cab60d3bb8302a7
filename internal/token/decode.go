// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"strconv"
	"strings"
	"time"
)

// claimLimits are for the payload, which is within [MaxLength] already.
var claimLimits = limits{depth: 16, values: 1024}

const (
	// maxDate is the last second of the year 9999, in seconds since 1970.
	maxDate = 253402300799
	// maxGeneration is the largest integer that every JSON reader takes exactly (RFC 7493).
	maxGeneration = 1<<53 - 1
)

// found says which claims a payload had, apart from their values.
type found struct{ exp, iat, gen bool }

// decodeClaims reads a payload. Types are checked here, presence and values by the caller.
func decodeClaims(in string) (*Claims, found, error) {
	c := &Claims{}
	var has found
	s := newScanner(in, claimLimits)
	err := s.document(func(name string) (err error) {
		switch name {
		case "iss":
			c.Issuer, err = s.text()
		case "sub":
			c.Subject, err = s.text()
		case "aud":
			c.Audience, err = s.audience()
		case "exp":
			c.ExpiresAt, err = s.date()
			has.exp = true
		case "nbf":
			c.NotBefore, err = s.date()
		case "iat":
			c.IssuedAt, err = s.date()
			has.iat = true
		case "jti":
			c.ID, err = s.text()
		case "sid":
			c.SessionID, err = s.text()
		case "client_id":
			c.ClientID, err = s.text()
		case "gen":
			c.Generation, err = s.generation()
			has.gen = true
		default:
			err = s.extra(c, name)
		}
		return err
	})
	if err != nil {
		return nil, has, refuse(TokenMalformed, "the claims are not accepted: "+err.Error())
	}
	return c, has, nil
}

// extra reads a claim that has no field of its own.
func (s *scanner) extra(c *Claims, name string) error {
	if resemblesRegistered(name) {
		return jsonError("a name differs from a registered one only in case")
	}
	value, err := s.value()
	if err != nil {
		return err
	}
	if c.Extra == nil {
		c.Extra = make(map[string]any, 4)
	}
	c.Extra[name] = value
	return nil
}

// resemblesRegistered finds SUB and ſub: a reader that folds case, as encoding/json
// does, would take them for the registered claim, and the application may be such a reader.
func resemblesRegistered(name string) bool {
	for _, known := range registered() {
		if strings.EqualFold(name, known) {
			return true
		}
	}
	return false
}

// audience is one string or a list of strings (RFC 7519 section 4.1.3).
func (s *scanner) audience() ([]string, error) {
	if s.peek() == '"' {
		one, err := s.text()
		return []string{one}, err
	}
	var list []string
	err := s.array(func() error {
		one, err := s.text()
		list = append(list, one)
		return err
	})
	return list, err
}

// date is a NumericDate (RFC 7519 section 2): seconds since 1970, written as a plain
// decimal with at most nine places.
func (s *scanner) date() (time.Time, error) {
	if !isDigit(s.peek()) {
		return time.Time{}, errJSONType
	}
	number, err := s.number()
	if err != nil {
		return time.Time{}, err
	}
	whole, fraction, _ := strings.Cut(number, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec > maxDate || len(fraction) > 9 {
		return time.Time{}, jsonError("a date is not a plain number of seconds")
	}
	var nsec int64
	if fraction != "" {
		nsec, err = strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
		if err != nil {
			return time.Time{}, jsonError("a date is not a plain number of seconds")
		}
	}
	return time.Unix(sec, nsec).UTC(), nil
}

func (s *scanner) generation() (int64, error) {
	if !isDigit(s.peek()) {
		return 0, errJSONType
	}
	number, err := s.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > maxGeneration {
		return 0, jsonError("gen is not a plain integer")
	}
	return n, nil
}
