// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"slices"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/session"
)

// feed is what an instance has read of the stream and still matters. Any number of
// receivers go by it, so that Redis is asked once for all of them.
type feed struct {
	// reading is held by who asks Redis for more.
	reading chan struct{}

	mu sync.Mutex
	// last is the newest place that was read.
	last place
	// epoch counts how often the stream was begun anew because our place in it was gone.
	epoch int
	// entries are in the order of their places.
	entries []revocation
	// lost are those of them that the server has forgotten, see restart.
	lost []revocation
	// pruned is how many there were after the last time the dead ones were removed.
	pruned int
	// changed is closed and replaced when something came.
	changed chan struct{}
}

func newFeed() *feed {
	return &feed{reading: make(chan struct{}, 1), changed: make(chan struct{})}
}

func (f *feed) position() place {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// add takes what was read after the last place.
func (f *feed) add(news []revocation, now time.Time) {
	if len(news) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = append(f.entries, news...)
	f.last = news[len(news)-1].place
	const worth = 1000
	if len(f.entries) > 2*f.pruned+worth {
		f.prune(now)
	}
	f.wake()
}

// restart takes the whole stream, which does not have the place any more where we
// were. What it has lost besides and still matters, the instance remembers: a sidecar
// must go on refusing what it refuses.
func (f *feed) restart(all []revocation, now time.Time) {
	there := make(map[session.ID]bool, len(all))
	for _, r := range all {
		there[r.id] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.entries {
		if !there[r.id] && r.matters(now) {
			there[r.id] = true
			f.lost = append(f.lost, r)
		}
	}
	f.last = place{}
	if len(all) > 0 {
		f.last = all[len(all)-1].place
	}
	f.entries = slices.Concat(all, f.lost)
	slices.SortStableFunc(f.entries, func(a, b revocation) int { return a.place.compare(b.place) })
	f.prune(now)
	f.epoch++
	f.wake()
}

// nextLost is the first revocation that is to be made again.
func (f *feed) nextLost() (revocation, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lost) == 0 {
		return revocation{}, false
	}
	return f.lost[0], true
}

// dropLost ends with that one. Only who holds reading changes lost.
func (f *feed) dropLost() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = f.lost[1:]
}

func (f *feed) prune(now time.Time) {
	f.entries = slices.DeleteFunc(f.entries, func(r revocation) bool { return !r.matters(now) })
	f.pruned = len(f.entries)
}

func (f *feed) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// reader is where a receiver is in the feed.
type reader struct {
	epoch int
	last  place
}

// reader begins after the cursor, or with everything when the feed does not know it.
func (f *feed) reader(since session.Cursor) reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := parsePlace(string(since))
	if _, found := f.find(at); !found {
		at = place{}
	}
	return reader{epoch: f.epoch, last: at}
}

func (f *feed) find(at place) (int, bool) {
	return slices.BinarySearchFunc(f.entries, at, func(r revocation, p place) int { return r.place.compare(p) })
}

// since returns what the reader has not got and matters at now, oldest first, and a
// channel that is closed when there is more.
func (f *feed) since(at *reader, now time.Time) ([]revocation, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.epoch != f.epoch {
		*at = reader{epoch: f.epoch}
	}
	first, found := f.find(at.last)
	if found {
		first++
	}
	var news []revocation
	for _, r := range f.entries[first:] {
		if r.matters(now) {
			news = append(news, r)
		}
	}
	if n := len(f.entries); n > 0 && f.entries[n-1].place.compare(at.last) > 0 {
		at.last = f.entries[n-1].place
	}
	return news, f.changed
}
