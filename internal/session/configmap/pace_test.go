// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenward/tokenward/internal/session"
)

// mostInASecond is the largest number of times that fall into one second.
func mostInASecond(times []time.Time) int {
	most, from := 0, 0
	for to := range times {
		for times[to].Sub(times[from]) >= time.Second {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

func TestThePaceHoldsWhateverTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(50, writeBurst)
		var mu sync.Mutex
		var made []time.Time
		var group sync.WaitGroup
		for range 16 {
			group.Go(func() {
				for range 40 {
					if err := p.wait(t.Context()); err != nil {
						t.Error(err)
					}
					mu.Lock()
					made = append(made, time.Now())
					mu.Unlock()
				}
			})
		}
		begin := time.Now()
		group.Wait()
		if most := mostInASecond(made); most > 50 {
			t.Errorf("%d writes in one second", most)
		}
		if rate := float64(len(made)) / time.Since(begin).Seconds(); rate < 40 {
			t.Errorf("only %.0f writes per second where 50 are allowed", rate)
		}
	})
}

func TestInstancesShareThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		paces := []*pace{newPace(50, writeBurst), newPace(50, writeBurst), newPace(50, writeBurst)}
		var mu sync.Mutex
		var made []time.Time
		var group sync.WaitGroup
		for i, p := range paces {
			for range 8 {
				group.Go(func() {
					for range 60 {
						_ = p.wait(t.Context())
						now := time.Now()
						for j, other := range paces {
							if j != i {
								other.saw(string(rune('a'+i)), now)
							}
						}
						mu.Lock()
						made = append(made, now)
						mu.Unlock()
					}
				})
			}
		}
		begin := time.Now()
		group.Wait()
		for len(made) > 0 && made[0].Sub(begin) < time.Second {
			made = made[1:] // until they know of each other
		}
		if most := mostInASecond(made); most > 50 {
			t.Errorf("%d writes in one second", most)
		}
	})
}

func TestAnUnusedPlaceIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(50, writeBurst)
		begin := time.Now()
		for range 1000 {
			_ = p.wait(t.Context())
			p.unused()
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("waited for %s without ever writing", took)
		}
	})
}

// TestWritesAreBounded drives a store far beyond its pace, and counts at the server's door.
func TestWritesAreBounded(t *testing.T) {
	var mu sync.Mutex
	var made []time.Time
	config := testConfig(t)
	config.Shards = 16
	config.Client = faulty(t, func(write func() error) error {
		mu.Lock()
		made = append(made, time.Now())
		mu.Unlock()
		return write()
	})
	store := open(t, config)
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			found := createSession(t, store)
			var err error
			for err == nil && found.Generation < 6 {
				found, err = store.Swap(t.Context(), rotate(found, time.Now()))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if most := mostInASecond(made); most > 50 {
		t.Errorf("%d writes in one second", most)
	}
	t.Logf("%d changes in %d writes", 200*6, len(made))
}

func TestCursors(t *testing.T) {
	v := make(vector, maxShards)
	for i := range v {
		v[i] = time.Now().UnixMilli() * 1000
	}
	if c := v.cursor(); len(c) > 1024 {
		t.Errorf("a cursor of %d shards has %d bytes", maxShards, len(c))
	}
	v = vector{0, 5, 1_800_000_000_000}
	if got := parseCursor(v.cursor(), 3); got[1] != 5 || got[2] != 1_800_000_000_000 {
		t.Errorf("%v became %v", v, got)
	}
	for _, c := range []session.Cursor{"", "1", "1.0.5", "2.0.5.9", "1.0.-5.9", "1.0.5.!", "1.0.5.9.9", "1.0.5.zzzzzzzzzzzzzzz"} {
		for shard, n := range parseCursor(c, 3) {
			if n != 0 {
				t.Errorf("cursor %q: shard %d begins at %d", c, shard, n)
			}
		}
	}
}

// A cluster that is restored from a backup has forgotten revocations, and its shards
// may hold lower numbers than a cursor; what is revoked afterwards must come.
func TestACursorFromTheFutureBeginsAnew(t *testing.T) {
	now := time.Now()
	f := newFeed(2)
	r := &record{Session: newSession("p", now).Revoke("session_revoked", now), sequence: now.UnixMilli()}
	f.update(0, &content{entries: map[string]*entry{"a": {record: r}}})
	from := vector{now.Add(time.Hour).UnixMilli(), now.UnixMilli()}
	f.rewind(from, now)
	if news, _ := f.since(from, now); len(news) != 1 || from[1] == 0 {
		t.Errorf("%d revocations came from %v", len(news), from)
	}
	if next := (&draft{entries: map[string]*entry{"a": {record: r}}}).nextSequence(now.Add(-time.Hour)); next <= r.sequence {
		t.Errorf("after a step of the clock revocation %d follows %d", next, r.sequence)
	}
}
