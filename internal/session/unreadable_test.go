// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whoever writes into a store chooses the names of what is in it.
func TestRecordsThatCannotBeReadAreToldWithinBounds(t *testing.T) {
	cause := errors.New("sealed with another key")
	e := &UnreadableError{}
	for range 10_000 {
		e.Add(strings.Repeat("é", 10_000)+"\xff", cause)
	}
	if e.Records != 10_000 || !errors.Is(e, cause) || !strings.HasSuffix(e.Where(), "; and 9997 more") {
		t.Errorf("%d records: %v", e.Records, e)
	}
	if got := e.Error(); len(got) > 700 || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
