// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

var ordered = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestRefuse(t *testing.T) {
	tests := map[string]struct {
		order api.RevocationOrder
		value string
		says  string // "": it is an order
	}{
		"a subject":                         {api.RevokeSubject, "alice", ""},
		"the longest subject":               {api.RevokeSubject, strings.Repeat("a", 512), ""},
		"no subject":                        {api.RevokeSubject, "", "empty"},
		"longer than a subject can be":      {api.RevokeSubject, strings.Repeat("a", 513), "513 bytes"},
		"now":                               {api.RevokeAll, "2026-03-01T12:00:00Z", ""},
		"now, elsewhere":                    {api.RevokeAll, "2026-03-01T21:00:00.25+09:00", ""},
		"last year":                         {api.RevokeAll, "2025-03-01T12:00:00Z", ""},
		"an administrator's clock is ahead": {api.RevokeAll, "2026-03-01T12:01:00Z", ""},
		"the future":                        {api.RevokeAll, "2026-03-01T12:01:01Z", "$(date -u +%Y-%m-%dT%H:%M:%SZ)"},
		"no moment":                         {api.RevokeAll, "now", "$(date -u +%Y-%m-%dT%H:%M:%SZ)"},
		"a moment without a zone":           {api.RevokeAll, "2026-03-01T12:00:00", "RFC 3339"},
		"an empty moment":                   {api.RevokeAll, "", "RFC 3339"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := refuse(test.order, test.value, ordered)
			if (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
				t.Errorf("got %q, want it to say %q", got, test.says)
			}
			if test.says != "" && !strings.HasPrefix(got, "Nothing was done") {
				t.Errorf("%q does not say that nothing was done", got)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	entry := func(state api.RevocationState) *api.Revocation {
		return &api.Revocation{Order: api.RevokeSubject, Value: "alice", State: state, OrderTime: metav1.NewTime(ordered)}
	}
	running := entry(api.RevocationInProgress)
	alice, bob, long := "alice", "bob", strings.Repeat("x", 5000)
	tests := map[string]struct {
		wanted *string
		entry  *api.Revocation
		known  known
		after  time.Duration
		want   verdict
	}{
		"no order":             {},
		"an order":             {wanted: &alice, want: verdict{step: claim}},
		"the same value again": {wanted: &alice, entry: entry(api.RevocationCompleted)},
		"the same value, and it was away meanwhile": {wanted: &alice, entry: entry(api.RevocationCompleted), known: known{withdrawn: true, done: true}, want: verdict{step: claim}},
		"another value":                              {wanted: &bob, entry: entry(api.RevocationCompleted), want: verdict{step: claim}},
		"the annotation is gone":                     {entry: entry(api.RevocationCompleted), want: verdict{step: clearEntry}},
		"a refused one is gone":                      {entry: entry(api.RevocationRefused), want: verdict{step: clearEntry}},
		"a refused one stays refused":                {wanted: &alice, entry: entry(api.RevocationRefused), after: time.Hour},
		"a refused one of which the beginning shows": {wanted: &long, entry: &api.Revocation{Value: beginning(long), State: api.RevocationRefused}},
		"another replica has it":                     {wanted: &alice, entry: running, after: 20 * time.Second, want: verdict{wait: 40 * time.Second}},
		"another replica has it, and it is gone":     {entry: running, after: 20 * time.Second, want: verdict{wait: 40 * time.Second}},
		"another replica has not finished it":        {wanted: &alice, entry: running, after: time.Minute, want: verdict{step: sweep}},
		"ours":                                       {wanted: &alice, entry: running, known: known{mine: true}, want: verdict{step: sweep}},
		"ours, swept once":                           {wanted: &alice, entry: running, known: known{mine: true, swept: true}, after: 10 * time.Second, want: verdict{wait: 20 * time.Second}},
		"ours, swept once, and logins are over":      {wanted: &alice, entry: running, known: known{mine: true, swept: true}, after: 30 * time.Second, want: verdict{step: sweep}},
		"ours, and the store is away":                {wanted: &alice, entry: running, known: known{mine: true, notBefore: ordered.Add(3 * time.Second)}, after: time.Second, want: verdict{wait: 2 * time.Second}},
		"ours, and another value before a sweep":     {wanted: &bob, entry: running, known: known{mine: true, withdrawn: true}, want: verdict{step: sweep}},
		"ours, and another value after it":           {wanted: &bob, entry: running, known: known{mine: true, withdrawn: true, swept: true}, want: verdict{step: claim}},
		"ours, and gone before a sweep":              {entry: running, known: known{mine: true, withdrawn: true}, want: verdict{step: sweep}},
		"ours, and gone after it":                    {entry: running, known: known{mine: true, withdrawn: true, swept: true}, want: verdict{step: clearEntry}},
		"ours, done, and not reported yet":           {wanted: &alice, entry: running, known: known{mine: true, swept: true, done: true}, after: 31 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := decide(test.wanted, test.entry, test.known, ordered.Add(test.after)); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestTheSameOrderAgainHasAnotherTime(t *testing.T) {
	first := claimed(api.RevokeSubject, "alice", nil, ordered.Add(900*time.Millisecond))
	second := claimed(api.RevokeSubject, "alice", &first, ordered.Add(950*time.Millisecond))
	if other := claimed(api.RevokeSubject, "bob", &second, ordered); !other.OrderTime.Equal(&first.OrderTime) {
		t.Errorf("an order for another subject is dated %s", other.OrderTime)
	}
	if !first.OrderTime.Equal(&metav1.Time{Time: ordered}) || !second.OrderTime.After(first.OrderTime.Time) {
		t.Errorf("ordered at %s, and again at %s", first.OrderTime, second.OrderTime)
	}
}

func TestWhatSomebodyWroteIntoTheStatusIsNoOrder(t *testing.T) {
	for _, value := range []string{"tomorrow", "2027-01-01T00:00:00Z"} {
		entry := api.Revocation{Order: api.RevokeAll, Value: value, State: api.RevocationInProgress, OrderTime: metav1.NewTime(ordered)}
		if _, ok := instanceOf(&entry).selection(); ok {
			t.Errorf("%q selects sessions", value)
		}
		if got := reported(entry, known{}, ordered); got.State != api.RevocationRefused {
			t.Errorf("%q is %s", value, got.State)
		}
	}
}
