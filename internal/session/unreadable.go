// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"strings"
)

const (
	// maxPlaces are named of the records that cannot be read.
	maxPlaces = 3
	// maxPlace is the longest of their names, in bytes. Ours are shorter; whoever writes into
	// a store can make longer ones.
	maxPlace = 160
)

// UnreadableError is the error of [Revoker.RevokeWhere] when every session that can be
// read is revoked, and there are records that cannot: nobody knows whose they are, and
// they may be readable again one day. It is bounded whatever is in the store.
type UnreadableError struct {
	// Records is how many there are.
	Records int
	// Places are where the first of them are, in words for who administrates the store. The ID
	// of a session may be part of them; it is no credential.
	Places []string
	// Remedy is what to do about them: it goes on where "to go on, " ends.
	Remedy string
	// Cause is why the first one cannot be read.
	Cause error
}

// Add counts a record. The order must be the same at each call, so that the error is.
func (e *UnreadableError) Add(place string, cause error) {
	if e.Records++; e.Records == 1 {
		e.Cause = cause
	}
	if len(e.Places) < maxPlaces {
		if len(place) > maxPlace {
			place = place[:maxPlace] + "…"
		}
		e.Places = append(e.Places, strings.ToValidUTF8(place, "?"))
	}
}

// Error names the records and why the first one cannot be read.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("%d session records cannot be read, so nobody knows whose they are (%s): %v", e.Records, e.Where(), e.Cause)
}

// Unwrap is the cause.
func (e *UnreadableError) Unwrap() error { return e.Cause }

// Where names the records, or the first of them.
func (e *UnreadableError) Where() string {
	where := strings.Join(e.Places, "; ")
	if more := e.Records - len(e.Places); more > 0 {
		where += fmt.Sprintf("; and %d more", more)
	}
	return where
}
