// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"sync"
	"time"
)

// quota holds all shards together to MaxSessions. It goes by what this instance has
// written itself and what its watch has told it, so several instances that fill the
// last places in the same moment may exceed it by what they write in that moment.
type quota struct {
	max   int
	count func(shard int, now time.Time) int
	now   func() time.Time

	mu      sync.Mutex
	known   []int // sessions in each shard
	pending []int // creates in each shard's unwritten draft
	// counted is when known was last corrected for sessions that died.
	counted time.Time
}

// recount is how often a full store looks whether sessions have died meanwhile.
const recount = time.Second

func newQuota(limit, shards int, now func() time.Time, count func(int, time.Time) int) *quota {
	return &quota{max: limit, now: now, count: count, known: make([]int, shards), pending: make([]int, shards)}
}

// admit asks for room for the creates that the draft of a shard comes to.
func (q *quota) admit(shard, creates int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending[shard] = creates
	if q.total() <= q.max {
		return true
	}
	if now := q.now(); q.counted.IsZero() || now.Sub(q.counted).Abs() >= recount {
		q.counted = now
		for i := range q.known {
			q.known[i] = q.count(i, now)
		}
		if q.total() <= q.max {
			return true
		}
	}
	q.pending[shard] = creates - 1
	return false
}

func (q *quota) total() int {
	sum := 0
	for i := range q.known {
		sum += q.known[i] + q.pending[i]
	}
	return sum
}

// drop forgets the draft of a shard.
func (q *quota) drop(shard int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending[shard] = 0
}

// set says how many sessions a shard holds; written, that its draft is part of them.
func (q *quota) set(shard, sessions int, written bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known[shard] = sessions
	if written {
		q.pending[shard] = 0
	}
}

// sessions is how many there are, as far as this instance knows.
func (q *quota) sessions() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	sum := 0
	for _, n := range q.known {
		sum += n
	}
	return sum
}
