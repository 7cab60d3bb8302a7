// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package standstill notices that the process stood still: stopped, paused with its
// machine, or without a CPU. What it reads right afterwards may have waited for as long,
// and whoever sent it may have gone elsewhere meanwhile.
package standstill

import (
	"context"
	"sync"
	"time"
)

const (
	// beat is how often the watch looks at the time.
	beat = 500 * time.Millisecond
	// pause is what it takes to be one; less is a busy machine.
	pause = 2 * time.Second
	// aftermath is for how long after a pause what is read may be of before it.
	aftermath = 2 * time.Second
)

// Watch notices pauses while it runs. Make one with [New].
type Watch struct {
	now func() time.Time

	mu          sync.Mutex
	last        time.Time // when it last looked
	from, until time.Time // the last pause
}

// New makes a watch. By the clock of the wall, which goes on while a machine is suspended;
// that it is set forward looks like a pause.
func New(now func() time.Time) *Watch {
	wall := func() time.Time { return now().Round(0) }
	return &Watch{now: wall, last: wall()}
}

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.look()
		}
	}
}

// look notices a pause that has just ended, whoever is the first to look.
func (w *Watch) look() time.Time {
	now := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.last) > pause {
		w.from, w.until = w.last, now
	}
	w.last = now
	return now
}

// Lasted is for how long what is read now may have lain here.
func (w *Watch) Lasted() time.Duration {
	now := w.look()
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.until) > aftermath {
		return 0
	}
	return max(0, now.Sub(w.from))
}
