// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package attempts

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1_800_000_000, 123_000_000)

func TestTake(t *testing.T) {
	limit := Limit{Burst: 3, Interval: time.Minute}
	in := start.Add
	tests := map[string]struct {
		limit       Limit
		whole, next time.Time
		wait        time.Duration
	}{
		"a new key":                               {limit, time.Time{}, in(time.Minute), 0},
		"a key that was whole long ago":           {limit, in(-time.Hour), in(time.Minute), 0},
		"a key that is whole now":                 {limit, start, in(time.Minute), 0},
		"the last attempt":                        {limit, in(2 * time.Minute), in(3 * time.Minute), 0},
		"a millisecond before the next":           {limit, in(2*time.Minute + time.Millisecond), in(2*time.Minute + time.Millisecond), time.Millisecond},
		"nothing is left":                         {limit, in(3 * time.Minute), in(3 * time.Minute), time.Minute},
		"counted by a clock that is ahead":        {limit, in(3*time.Minute + Skew), in(3*time.Minute + Skew), time.Minute + Skew},
		"counted by no clock that can be":         {limit, in(3*time.Minute + Skew + time.Millisecond), in(3 * time.Minute), time.Minute},
		"counted under a much larger limit":       {limit, in(24 * time.Hour), in(3 * time.Minute), time.Minute},
		"a burst of one":                          {Limit{1, time.Second}, time.Time{}, in(time.Second), 0},
		"a burst of one that was made":            {Limit{1, time.Second}, in(time.Second), in(time.Second), time.Second},
		"the largest limit that a policy may set": {Limit{100000, 24 * time.Hour}, time.Time{}, in(24 * time.Hour), 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			// What is below a millisecond is not kept and must not matter.
			for _, now := range []time.Time{start, start.Add(999 * time.Microsecond)} {
				next, wait := test.limit.Take(test.whole, now)
				if !next.Equal(test.next) || wait != test.wait {
					t.Errorf("next is %s after now and the wait %s, want %s and %s", next.Sub(start), wait, test.next.Sub(start), test.wait)
				}
			}
		})
	}
}

// TestNoMoreThanTheLimit is what a limit promises, whatever the times of the attempts.
func TestNoMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := anyLimit(t)
		var whole time.Time
		now, made := start, 0
		for range rapid.IntRange(1, 200).Draw(t, "attempts") {
			now = now.Add(pause(t, limit))
			next, wait := limit.Take(whole, now)
			if wait < 0 || wait > limit.Interval {
				t.Fatalf("the wait is %s, an attempt comes back every %s", wait, limit.Interval)
			}
			if whole = next; wait == 0 {
				made++
				continue
			}
			// Who waits as long as it says is not refused, and not sooner.
			if _, again := limit.Take(whole, now.Add(wait)); again != 0 {
				t.Fatalf("after a wait of %s there is another of %s", wait, again)
			}
			if _, again := limit.Take(whole, now.Add(wait-time.Millisecond)); again == 0 {
				t.Fatalf("the wait of %s is too long", wait)
			}
		}
		if most := limit.Burst + int(now.Sub(start)/limit.Interval); made > most {
			t.Fatalf("%d attempts in %s, at most %d are allowed", made, now.Sub(start), most)
		}
	})
}

// TestSlowAndFastClocks has instances whose clocks differ ask in any order.
func TestSlowAndFastClocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := anyLimit(t)
		offsets := rapid.SliceOfN(rapid.Int64Range(0, Skew.Milliseconds()), 2, 4).Draw(t, "clocks")
		var whole time.Time
		now, made := start, 0
		for range rapid.IntRange(1, 200).Draw(t, "attempts") {
			now = now.Add(pause(t, limit))
			clock := now.Add(time.Duration(rapid.SampledFrom(offsets).Draw(t, "clock")) * time.Millisecond)
			next, wait := limit.Take(whole, clock)
			if whole = next; wait == 0 {
				made++
			}
		}
		// The fast clock's present is the slow one's future: that much more, once.
		if most := limit.Burst + int((now.Sub(start)+Skew)/limit.Interval); made > most {
			t.Fatalf("%d attempts in %s, at most %d are allowed", made, now.Sub(start), most)
		}
	})
}

// TestAnyHistoryHeals has limits change and clocks jump. Whatever was before: nobody
// waits for longer than an interval and what another clock explains.
func TestAnyHistoryHeals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var whole time.Time
		now := start
		for range rapid.IntRange(1, 50).Draw(t, "attempts") {
			limit := anyLimit(t)
			now = now.Add(time.Duration(rapid.Int64Range(-1e9, 1e9).Draw(t, "jump")) * time.Millisecond)
			next, wait := limit.Take(whole, now)
			if wait > limit.Interval+Skew {
				t.Fatalf("the wait is %s under %+v", wait, limit)
			}
			if _, again := limit.Take(next, now.Add(wait)); wait > 0 && again != 0 {
				t.Fatalf("after a wait of %s there is another of %s", wait, again)
			}
			if whole = next; rapid.Bool().Draw(t, "give back") && wait == 0 {
				whole = limit.GiveBack(whole)
			}
		}
	})
}

func TestGiveBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := anyLimit(t)
		now := start.Truncate(time.Millisecond)
		// Anything that is not used up, as a moment from now on.
		whole := now.Add(time.Duration(rapid.Int64Range(0, int64(limit.Burst-1)*limit.Interval.Milliseconds()).Draw(t, "whole")) * time.Millisecond)
		next, wait := limit.Take(whole, now)
		if wait != 0 {
			t.Fatalf("refused for %s", wait)
		}
		if back := limit.GiveBack(next); !back.Equal(whole) {
			t.Fatalf("%s became %s", whole.Sub(now), back.Sub(now))
		}
		// More than was taken makes no more than a whole allowance.
		made := 0
		for w := limit.GiveBack(limit.GiveBack(now)); ; made++ {
			if w, wait = limit.Take(w, now); wait > 0 {
				break
			}
		}
		if made != limit.Burst {
			t.Fatalf("%d attempts of %d", made, limit.Burst)
		}
	})
}

func anyLimit(t *rapid.T) Limit {
	return Limit{
		Burst:    rapid.IntRange(1, 20).Draw(t, "burst"),
		Interval: time.Duration(rapid.SampledFrom([]int{1, 100, 1000, 60_000, 3_600_000}).Draw(t, "interval")) * time.Millisecond,
	}
}

// pause is mostly none, sometimes part of an interval and rarely many.
func pause(t *rapid.T, limit Limit) time.Duration {
	most := rapid.SampledFrom([]int64{0, 0, 0, 1, 3}).Draw(t, "scale") * limit.Interval.Milliseconds()
	return time.Duration(rapid.Int64Range(0, most).Draw(t, "pause")) * time.Millisecond
}

func TestKeys(t *testing.T) {
	parts := []string{"", "a", "b", "ab", "account", "address", "alice", "a\x00b", "größe"}
	seen := map[Key][3]string{}
	for _, policy := range parts {
		for _, kind := range parts {
			for _, value := range parts {
				key, from := NewKey(policy, kind, value), [3]string{policy, kind, value}
				if other, twice := seen[key]; twice {
					t.Errorf("%q and %q have the same key", other, from)
				}
				seen[key] = from
				if len(key) != 22 || key != NewKey(policy, kind, value) {
					t.Errorf("key %q", key)
				}
			}
		}
	}
}
