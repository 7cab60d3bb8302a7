// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package countertest holds a counter of attempts to the contract of
// [attempts.Counter]. A counter's own test is a [Backend] and a call of [Run].
package countertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session/storetest"
)

// Backend is a kind of counter.
type Backend struct {
	// Open returns one more instance over the keys of o.Policy, and closes it when tb
	// ends unless the suite has. An instance may be an io.Closer. It goes by o.Now.
	Open func(tb testing.TB, o storetest.Options) attempts.Counter
	// Kept says how many keys of o.Policy are kept, once what is dead at o.Now was
	// removed in the way that the counter has for it. Nil where a server removes them by
	// its own clock; then the counter's own test looks whether it is told to.
	Kept func(tb testing.TB, o storetest.Options) int
}

// limit of the suite. Its interval is long, because a server may forget keys by its own
// clock while the suite's stands still.
var limit = attempts.Limit{Burst: 7, Interval: 10 * time.Minute}

// Run runs the suite.
func Run(t *testing.T, backend Backend) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"a key has its burst at every instance together, then a wait", burst},
		{"of many at once exactly the burst succeed", manyAtOnce},
		{"the allowance grows back with the clock", growsBack},
		{"keys are apart", keysApart},
		{"policies are apart", policiesApart},
		{"an attempt that was given back can be made again", givenBack},
		{"giving back makes no allowance larger", notLarger},
		{"many who take and give back come out even", even},
		{"a limit that was shrunk holds from now on", shrunk},
		{"a clock that was a day ahead locks nobody out", aheadOfTime},
		{"a clock that goes back locks nobody out", clockGoesBack},
		{"a cancelled call returns and harms nobody", cancelled},
		{"nothing is lost over a reopen", reopen},
		{"a closed counter is an outage", closed},
		{"what is whole again is forgotten", forgotten},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			clock := storetest.NewClock()
			test.run(t, &suite{
				backend: backend, clock: clock,
				options: storetest.Options{Policy: storetest.NewPolicyID(), MaxSessions: 1, Now: clock.Now},
			})
		})
	}
}

type suite struct {
	backend Backend
	clock   *storetest.Clock
	options storetest.Options
}

func (s *suite) open(t *testing.T, n int) []attempts.Counter {
	t.Helper()
	var counters []attempts.Counter
	for range n {
		counters = append(counters, s.backend.Open(t, s.options))
	}
	return counters
}

func (s *suite) key(account string) attempts.Key {
	return attempts.NewKey(string(s.options.Policy), "account", account)
}

func take(t *testing.T, c attempts.Counter, key attempts.Key, l attempts.Limit) time.Duration {
	t.Helper()
	wait, err := c.Take(t.Context(), key, l)
	if err != nil {
		t.Fatalf("take: %v", err)
	}
	return wait
}

func giveBack(t *testing.T, c attempts.Counter, key attempts.Key) {
	t.Helper()
	if err := c.GiveBack(t.Context(), key, limit); err != nil {
		t.Fatalf("give back: %v", err)
	}
}

// has checks that exactly n attempts are left, and takes them.
func has(t *testing.T, what string, c attempts.Counter, key attempts.Key, n int) {
	t.Helper()
	for i := range n {
		if wait := take(t, c, key, limit); wait != 0 {
			t.Fatalf("%s: attempt %d of %d has to wait for %s", what, i+1, n, wait)
		}
	}
	if wait := take(t, c, key, limit); wait <= 0 {
		t.Errorf("%s: there were more than %d attempts", what, n)
	}
}

func burst(t *testing.T, s *suite) {
	t.Helper()
	counters := s.open(t, 3)
	for i := range limit.Burst {
		if wait := take(t, counters[i%3], s.key("alice"), limit); wait != 0 {
			t.Fatalf("attempt %d has to wait for %s", i+1, wait)
		}
	}
	// Again and again: being refused makes the wait no longer.
	for i, c := range append(counters, counters...) {
		if wait := take(t, c, s.key("alice"), limit); wait != limit.Interval {
			t.Errorf("refusal %d: the wait is %s, an attempt comes back every %s", i+1, wait, limit.Interval)
		}
	}
}

func manyAtOnce(t *testing.T, s *suite) {
	t.Helper()
	counters := s.open(t, 3)
	var taken, refused atomic.Int64
	var group sync.WaitGroup
	for worker := range 60 {
		group.Go(func() {
			switch wait, err := counters[worker%3].Take(t.Context(), s.key("alice"), limit); {
			case err != nil:
				t.Errorf("take: %v", err)
			case wait == 0:
				taken.Add(1)
			case wait == limit.Interval:
				refused.Add(1)
			default:
				t.Errorf("the wait is %s, an attempt comes back every %s", wait, limit.Interval)
			}
		})
	}
	group.Wait()
	if taken.Load() != int64(limit.Burst) || refused.Load() != 60-int64(limit.Burst) {
		t.Errorf("%d of 60 attempts were made and %d refused, the burst is %d", taken.Load(), refused.Load(), limit.Burst)
	}
}

func growsBack(t *testing.T, s *suite) {
	t.Helper()
	counters := s.open(t, 2)
	has(t, "at first", counters[0], s.key("alice"), limit.Burst)
	s.clock.Advance(limit.Interval - time.Second)
	if wait := take(t, counters[1], s.key("alice"), limit); wait != time.Second {
		t.Errorf("a second before the next attempt the wait is %s", wait)
	}
	s.clock.Advance(time.Second)
	has(t, "after an interval", counters[1], s.key("alice"), 1)
	s.clock.Advance(3 * limit.Interval)
	has(t, "after three more", counters[0], s.key("alice"), 3)
	s.clock.Advance(time.Duration(10*limit.Burst) * limit.Interval)
	has(t, "after a long time", counters[1], s.key("alice"), limit.Burst)
}

func keysApart(t *testing.T, s *suite) {
	t.Helper()
	c := s.open(t, 1)[0]
	policy := string(s.options.Policy)
	for _, key := range []attempts.Key{
		s.key("alice"), s.key("bob"), s.key(""), attempts.NewKey(policy, "address", "alice"),
		attempts.NewKey(policy, "accounta", "lice"),
	} {
		has(t, string(key), c, key, limit.Burst)
	}
}

func policiesApart(t *testing.T, s *suite) {
	t.Helper()
	other := &suite{backend: s.backend, clock: s.clock, options: s.options}
	other.options.Policy = storetest.NewPolicyID()
	mine, theirs := s.open(t, 1)[0], other.open(t, 1)[0]
	key := s.key("alice") // the very same key
	has(t, "one policy", mine, key, limit.Burst)
	has(t, "another policy", theirs, key, limit.Burst)
	giveBack(t, theirs, key)
	has(t, "one policy after the other got one back", mine, key, 0)
}

func givenBack(t *testing.T, s *suite) {
	t.Helper()
	counters := s.open(t, 2)
	has(t, "at first", counters[0], s.key("alice"), limit.Burst)
	giveBack(t, counters[0], s.key("alice"))
	giveBack(t, counters[1], s.key("alice"))
	has(t, "after two came back", counters[1], s.key("alice"), 2)
	giveBack(t, counters[1], s.key("alice"))
	has(t, "after one more", counters[0], s.key("alice"), 1)
}

func notLarger(t *testing.T, s *suite) {
	t.Helper()
	c := s.open(t, 1)[0]
	giveBack(t, c, s.key("alice")) // of whom nothing is known
	has(t, "a new key", c, s.key("alice"), limit.Burst)
	take(t, c, s.key("bob"), limit)
	for range 3 {
		giveBack(t, c, s.key("bob"))
	}
	has(t, "a key that got back more than was taken", c, s.key("bob"), limit.Burst)
}

func even(t *testing.T, s *suite) {
	t.Helper()
	counters := s.open(t, 3)
	var group sync.WaitGroup
	for worker := range 30 {
		group.Go(func() {
			c := counters[worker%3]
			wait, err := c.Take(t.Context(), s.key("alice"), limit)
			if err == nil && wait == 0 {
				err = counters[(worker+1)%3].GiveBack(t.Context(), s.key("alice"), limit)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	has(t, "after all came back", counters[0], s.key("alice"), limit.Burst)
}

func shrunk(t *testing.T, s *suite) {
	t.Helper()
	c := s.open(t, 1)[0]
	large := attempts.Limit{Burst: 20, Interval: 24 * time.Hour}
	for range large.Burst {
		take(t, c, s.key("alice"), large)
	}
	if wait := take(t, c, s.key("alice"), limit); wait <= 0 || wait > limit.Interval {
		t.Errorf("the wait is %s, an attempt comes back every %s", wait, limit.Interval)
	}
	s.clock.Advance(limit.Interval)
	has(t, "an interval later", c, s.key("alice"), 1)
}

func aheadOfTime(t *testing.T, s *suite) {
	t.Helper()
	ahead := s.options
	ahead.Now = func() time.Time { return s.clock.Now().Add(24 * time.Hour) }
	wrong, right := s.backend.Open(t, ahead), s.open(t, 1)[0]
	has(t, "tomorrow", wrong, s.key("alice"), limit.Burst)
	if wait := take(t, right, s.key("alice"), limit); wait <= 0 || wait > limit.Interval {
		t.Errorf("the wait is %s, an attempt comes back every %s", wait, limit.Interval)
	}
	s.clock.Advance(limit.Interval)
	has(t, "an interval later", right, s.key("alice"), 1)
}

func clockGoesBack(t *testing.T, s *suite) {
	t.Helper()
	c := s.open(t, 1)[0]
	has(t, "at first", c, s.key("alice"), limit.Burst)
	s.clock.Advance(-24 * time.Hour)
	if wait := take(t, c, s.key("alice"), limit); wait <= 0 || wait > limit.Interval {
		t.Errorf("the wait is %s, an attempt comes back every %s", wait, limit.Interval)
	}
	s.clock.Advance(limit.Interval)
	has(t, "an interval later", c, s.key("alice"), 1)
}

func cancelled(t *testing.T, s *suite) {
	t.Helper()
	counters := s.open(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := counters[0].Take(ctx, s.key("alice"), limit); !errors.Is(err, context.Canceled) {
		t.Errorf("take: %v", err)
	}
	if err := counters[0].GiveBack(ctx, s.key("alice"), limit); !errors.Is(err, context.Canceled) {
		t.Errorf("give back: %v", err)
	}
	has(t, "a key that only cancelled calls asked for", counters[1], s.key("alice"), limit.Burst)

	// Cancelled while others wait for the same write: those get what they asked for.
	var group sync.WaitGroup
	for worker := range 20 {
		c, mine := counters[worker%2], s.key(fmt.Sprintf("user-%d", worker))
		if worker%4 < 2 {
			group.Go(func() {
				if wait, err := c.Take(t.Context(), mine, limit); err != nil || wait != 0 {
					t.Errorf("take beside a cancelled one: %v, wait %s", err, wait)
				}
			})
			continue
		}
		group.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			group.Go(cancel)
			if _, err := c.Take(ctx, mine, limit); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled take: %v", err)
			}
		})
	}
	group.Wait()
}

func closeCounter(t *testing.T, c attempts.Counter) {
	t.Helper()
	if closer, ok := c.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
}

func reopen(t *testing.T, s *suite) {
	t.Helper()
	first := s.open(t, 1)[0]
	for range 3 {
		take(t, first, s.key("alice"), limit)
	}
	closeCounter(t, first)
	has(t, "after a reopen", s.open(t, 1)[0], s.key("alice"), limit.Burst-3)
}

func closed(t *testing.T, s *suite) {
	t.Helper()
	counters := s.open(t, 2)
	closer, ok := counters[0].(io.Closer)
	if !ok {
		t.Fatal("it cannot be closed")
	}
	take(t, counters[0], s.key("alice"), limit)
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	if wait, err := counters[0].Take(t.Context(), s.key("alice"), limit); err == nil {
		t.Errorf("take: no error, and a wait of %s", wait)
	}
	if err := counters[0].GiveBack(t.Context(), s.key("alice"), limit); err == nil {
		t.Error("give back: no error")
	}
	has(t, "another instance", counters[1], s.key("alice"), limit.Burst-1)
}

func forgotten(t *testing.T, s *suite) {
	t.Helper()
	c := s.open(t, 1)[0]
	const keys = 200
	var group sync.WaitGroup
	for i := range keys {
		group.Go(func() {
			if _, err := c.Take(t.Context(), s.key(fmt.Sprintf("user-%d", i)), limit); err != nil {
				t.Errorf("take: %v", err)
			}
		})
	}
	group.Wait()
	kept := func() int {
		if s.backend.Kept == nil {
			return -1
		}
		return s.backend.Kept(t, s.options)
	}
	if n := kept(); n != keys && n != -1 {
		t.Errorf("%d keys are kept of %d", n, keys)
	}
	s.clock.Advance(limit.Interval - time.Second)
	take(t, c, s.key("late"), limit)
	s.clock.Advance(2 * time.Second)
	if n := kept(); n != 1 && n != -1 {
		t.Errorf("%d keys are kept, all but one are whole again", n)
	}
	giveBack(t, c, s.key("user-7"))
	if n := kept(); n != 1 && n != -1 {
		t.Errorf("%d keys are kept after one that is forgotten was given back", n)
	}
	has(t, "a forgotten key", c, s.key("user-7"), limit.Burst)
	has(t, "the key that is kept", c, s.key("late"), limit.Burst-1)
}
