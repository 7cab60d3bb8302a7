// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/flight"
	"github.com/tokenward/tokenward/internal/session"
)

const (
	// recount is how often the sessions are counted while some are created.
	recount = 10 * time.Second
	// recountFull is how often a full store looks whether sessions have died.
	recountFull = time.Second
	// countTimeout is the most that counting may take.
	countTimeout = 5 * time.Second
)

// quota holds a policy to its MaxSessions. A counter in the database would have all
// logins wait for one row; so it goes by a count of now and then, and by what this
// instance has created since.
type quota struct {
	max      int
	now      func() time.Time
	count    func(context.Context) (int, error)
	counting flight.Group[struct{}, struct{}]

	mu sync.Mutex
	// known is the last count and the creates since, pending the creates under way.
	known, pending int
	// since counts the creates while a count is under way, which may have missed them.
	since   int
	counted time.Time
}

// admit asks for room for one more session; done gives its place back, or keeps it.
func (q *quota) admit(ctx context.Context) error {
	return q.room(ctx, func() { q.pending++ })
}

// room is [session.ErrFull] when there is none; otherwise it has take called, locked.
func (q *quota) room(ctx context.Context, take func()) error {
	if q.outdated() {
		if _, _, err := q.counting.Do(ctx, struct{}{}, countTimeout, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, q.recount(ctx)
		}); err != nil {
			return err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known+q.pending >= q.max {
		return session.ErrFull
	}
	take()
	return nil
}

func (q *quota) outdated() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	age := q.now().Sub(q.counted).Abs()
	return age >= recount || q.known+q.pending >= q.max && age >= recountFull
}

func (q *quota) recount(ctx context.Context) error {
	q.mu.Lock()
	q.since = 0
	at := q.now()
	q.mu.Unlock()
	n, err := q.count(ctx)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known, q.counted = n+q.since, at
	return nil
}

func (q *quota) done(created bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending--
	if created {
		q.known++
		q.since++
	}
}
