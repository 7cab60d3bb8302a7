// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"sync"
	"time"
)

// writeBurst is how many writes may follow each other at once.
const writeBurst = 5

// writerSeen is how long another instance counts as one after a write of its own.
const writerSeen = 5 * time.Second

// pace spreads an instance's requests for all shards (the generic cell rate
// algorithm). The sustained rate is so much lower than the limit that with its bursts
// no second has more than the limit. It runs on the machine's clock: it protects the
// API server of today.
type pace struct {
	limit, burst float64

	mu      sync.Mutex
	due     time.Time            // the next request's, were there no bursts
	writers map[string]time.Time // other instances, and when they wrote last
}

func newPace(limit, burst float64) *pace {
	return &pace{limit: limit, burst: min(burst, limit/2), writers: map[string]time.Time{}}
}

// share is this instance's interval between requests, and how far ahead of it they may be.
func (p *pace) share(now time.Time) (interval, ahead time.Duration) {
	writers := 1.0
	for id, seen := range p.writers {
		if now.Sub(seen) > writerSeen {
			delete(p.writers, id)
			continue
		}
		writers++
	}
	interval = time.Duration(writers / (p.limit - p.burst) * float64(time.Second))
	return interval, time.Duration(max(p.burst/writers-1, 0) * float64(interval))
}

// saw notes that another instance has written.
func (p *pace) saw(writer string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writers[writer] = now
}

// wait takes the next place and waits for it. It ends early with ctx.
func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	now := time.Now()
	interval, ahead := p.share(now)
	if p.due.Before(now) {
		p.due = now
	}
	at := p.due.Add(-ahead)
	p.due = p.due.Add(interval)
	p.mu.Unlock()
	return sleep(ctx, at.Sub(now))
}

// unused gives a place back that was waited for and not needed.
func (p *pace) unused() {
	p.mu.Lock()
	defer p.mu.Unlock()
	interval, _ := p.share(time.Now())
	p.due = p.due.Add(-interval)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
