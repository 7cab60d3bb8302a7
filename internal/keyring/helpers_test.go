// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

var start = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

// basePlan rotates every ten hours, an hour ahead, and keeps keys for three hours.
func basePlan() Plan {
	return Plan{
		Now: start, Algorithm: token.EdDSA, Interval: 10 * time.Hour, PublishBefore: time.Hour, Retention: 3 * time.Hour,
		Generate: token.GenerateKey,
	}
}

// life is a ring with its plan, moved on step by step. Every step goes through the
// document, as it does in the controller.
type life struct {
	tb     testing.TB
	ring   *Ring
	plan   Plan
	events []Event
	wait   time.Duration
	err    error
}

func begin(tb testing.TB) *life {
	tb.Helper()
	l := &life{tb: tb, ring: New("uid"), plan: basePlan()}
	l.step(0)
	return l
}

// step lets time pass and advances.
func (l *life) step(passed time.Duration) {
	l.tb.Helper()
	l.plan.Now = l.plan.Now.Add(passed)
	l.ring, l.events, l.wait, l.err = Advance(l.ring, l.plan)
	data, err := l.ring.Marshal()
	if err != nil {
		l.tb.Fatalf("write ring: %v", err)
	}
	if l.ring, err = Parse(data); err != nil {
		l.tb.Fatalf("read ring: %v", err)
	}
}

func (l *life) active() string {
	l.tb.Helper()
	key, ok := l.ring.Active()
	if !ok {
		l.tb.Fatal("no key is active")
	}
	return key.Public.ID
}

func (l *life) state(id string) State {
	for _, key := range l.ring.Keys {
		if key.Public.ID == id {
			return key.State
		}
	}
	return ""
}

func (l *life) published() string {
	if i := l.ring.index(Published); i >= 0 {
		return l.ring.Keys[i].Public.ID
	}
	return ""
}

// want compares states, newest first, and the types of the events of the last step.
func (l *life) want(states []State, events ...EventType) {
	l.tb.Helper()
	var gotStates []State
	for _, key := range l.ring.Keys {
		gotStates = append(gotStates, key.State)
		if (key.State == Retired) != (key.Private == nil) {
			l.tb.Errorf("%s key with private half: %v", key.State, key.Private != nil)
		}
	}
	var gotEvents []EventType
	for _, event := range l.events {
		gotEvents = append(gotEvents, event.Type)
		if event.KeyID == "" || event.Message == "" {
			l.tb.Errorf("event %+v says nothing", event)
		}
	}
	if !slices.Equal(gotStates, states) {
		l.tb.Errorf("states are %v, want %v", gotStates, states)
	}
	if !slices.Equal(gotEvents, events) {
		l.tb.Errorf("events are %v, want %v", gotEvents, events)
	}
	if l.err != nil {
		l.tb.Errorf("advance: %v", l.err)
	}
}

func (l *life) wantWait(want time.Duration) {
	l.tb.Helper()
	if l.wait != want {
		l.tb.Errorf("recheck after %v, want %v", l.wait, want)
	}
}

func newKey(tb testing.TB) *token.PrivateKey {
	tb.Helper()
	key, err := token.GenerateKey(token.EdDSA, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// loseSecret goes on with the public record.
func (l *life) loseSecret() {
	l.tb.Helper()
	record, err := l.ring.MarshalPublic()
	if err != nil {
		l.tb.Fatal(err)
	}
	if l.ring, err = Parse(record); err != nil {
		l.tb.Fatal(err)
	}
}

func wantImportError(tb testing.TB, err error, id string) {
	tb.Helper()
	var refused *ImportError
	if !errors.As(err, &refused) || refused.KeyID != id || refused.Why == "" {
		tb.Fatalf("got %v, want an import error for %s", err, id)
	}
}

func sameRing(tb testing.TB, a, b *Ring) bool {
	tb.Helper()
	first, err := a.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	second, err := b.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Equal(first, second)
}
