// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package password

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"
)

// ErrQueueFull says that as many callers as may wait for a hash are waiting already.
var ErrQueueFull = errors.New("the queue of passwords to check is full")

// Observer is told what a [Pool] does. Its methods must not block.
type Observer interface {
	// HashWaiting is called with +1 and -1 as callers begin and end to wait.
	HashWaiting(delta int)
	// HashDone is called after each hash with the time that it took.
	HashDone(took time.Duration)
	// HashRefused is called when the queue was full.
	HashRefused()
}

// Pool verifies passwords, a bounded number at a time: an argon2id hash takes
// memory and a core, and a flood of logins must not take the process down. With n
// at a time it uses at most n times [MaxMemoryKiB].
type Pool struct {
	slots    chan struct{}
	waiting  atomic.Int64
	queue    int64
	observer Observer
}

// mostAtOnce bounds the default: a large machine has more cores than a container has
// memory for hashes. With it they take at most 512 MiB, which the issuer's Deployment
// has room for.
const mostAtOnce = 4

// NewPool makes a pool that computes atOnce hashes at a time and lets queue callers
// wait. Zero means: one for each core, but not more than 4, and 32 waiting for each
// of these, about a second of work. The observer may be nil.
func NewPool(atOnce, queue int, observer Observer) *Pool {
	if atOnce <= 0 {
		atOnce = min(runtime.GOMAXPROCS(0), mostAtOnce)
	}
	if queue <= 0 {
		queue = 32 * atOnce
	}
	return &Pool{slots: make(chan struct{}, atOnce), queue: int64(queue), observer: observer}
}

// Verify says whether the password has this hash. Errors: [ErrQueueFull], and the
// context's own when it ends while waiting; a hash that has begun is finished.
func (p *Pool) Verify(ctx context.Context, hash Encoded, password string) (bool, error) {
	if err := p.acquire(ctx); err != nil {
		return false, err
	}
	defer func() { <-p.slots }()
	began := time.Now()
	ok := hash.matches(password)
	if p.observer != nil {
		p.observer.HashDone(time.Since(began))
	}
	return ok, nil
}

func (p *Pool) acquire(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	if p.waiting.Add(1) > p.queue {
		p.waiting.Add(-1)
		if p.observer != nil {
			p.observer.HashRefused()
		}
		return ErrQueueFull
	}
	defer p.waiting.Add(-1)
	if p.observer != nil {
		p.observer.HashWaiting(1)
		defer p.observer.HashWaiting(-1)
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
