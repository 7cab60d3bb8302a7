// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// FuzzOrder gives any value to the annotations, over any entry that somebody may have
// written into the status: what is to be stored is taken by the API server, and the same
// value is decided on once.
func FuzzOrder(f *testing.F) {
	f.Add(true, "alice", "", "", int64(0), uint8(0))
	f.Add(true, strings.Repeat("é", 700), strings.Repeat("é", 700), string(api.RevocationInProgress), int64(1), uint8(255))
	f.Add(false, "2026-01-31T12:00:00Z", "yesterday", string(api.RevocationInProgress), int64(1), uint8(3))
	f.Add(false, "9999-12-31T23:59:59Z", "0000-01-01T00:00:00+23:59", string(api.RevocationCompleted), int64(253402300799), uint8(16))
	f.Add(false, "0000-01-01T00:00:00+23:59", "\xff\x00", "Odd", int64(-62135596800), uint8(31))
	f.Fuzz(func(t *testing.T, subject bool, value, was, state string, at int64, knows uint8) {
		if !utf8.ValidString(value) || !utf8.ValidString(was) || len(value) > 256<<10 || utf8.RuneCountInString(was) > maxValue {
			return // what no API server lets in
		}
		order := api.RevokeAll
		if subject {
			order = api.RevokeSubject
		}
		now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		var entry *api.Revocation
		if state != "" {
			// The year has four digits in what is stored.
			entry = &api.Revocation{Order: order, Value: was, State: api.RevocationState(state), OrderTime: metav1.Unix(at%253_402_300_800, 0)}
		}
		k := known{mine: knows&1 > 0, withdrawn: knows&2 > 0, swept: knows&4 > 0, done: knows&8 > 0, stuck: knows&16 > 0, uncounted: int(knows)}
		if knows&32 > 0 {
			k.trouble, k.notBefore = "the session store does not answer", now.Add(lastDelay)
		}
		v := decide(&value, entry, k, now)
		if again := decide(&value, entry, k, now); v != again || v.wait < 0 || v.step == clearEntry {
			t.Fatalf("%+v, then %+v", v, again)
		}
		if entry != nil {
			check(t, reported(*entry, k, now), value)
		}
		if v.step != claim {
			return
		}
		next := claimed(order, value, entry, now)
		check(t, next, value)
		if v := decide(&value, &next, known{mine: true}, now); v.step == claim {
			t.Fatalf("%q is claimed for ever: %+v", value, next)
		}
		if _, ok := instanceOf(&next).selection(); ok != (next.State == api.RevocationInProgress) {
			t.Fatalf("%q is %s, and it can be carried out: %t", value, next.State, ok)
		}
	})
}

// check holds an entry against the schema. The value of an entry is the beginning of
// one that was valid, and stays as it is in what is only reported.
func check(t *testing.T, entry api.Revocation, value string) {
	t.Helper()
	if utf8.RuneCountInString(entry.Value) > maxValue || !utf8.ValidString(entry.Value) || utf8.RuneCountInString(entry.Message) > maxValue || entry.Sessions < 0 {
		t.Fatalf("of %d bytes comes an entry that the API server does not take: %+v", len(value), entry)
	}
	if entry.State == api.RevocationRefused && entry.Message == "" {
		t.Fatalf("refused without a reason: %+v", entry)
	}
}
