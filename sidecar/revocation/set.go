// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package revocation knows which sessions were revoked: a [Set] that every request
// looks into, and a [Follower] that keeps it up to date from the issuer's stream.
//
// An entry is kept until the last token of its session is dead. Nothing is ever
// dropped before, whatever the number: forgetting a revocation would let somebody in.
package revocation

import (
	"sync"
	"sync/atomic"
	"time"
)

// keepUnknown is how long an entry without an end of its own is kept: a day, the
// longest life of a token, and a minute, the most leeway.
const keepUnknown = 24*time.Hour + time.Minute

// Set is safe for concurrent use.
type Set struct {
	now func() time.Time
	// onRevoked is told of each session that was not revoked before.
	onRevoked func(sessionID string)

	size    atomic.Int64
	mu      sync.RWMutex
	entries map[string]time.Time
	swept   time.Time
}

// NewSet makes an empty set. onRevoked ends what belongs to a session; it must not block.
func NewSet(now func() time.Time, onRevoked func(sessionID string)) *Set {
	return &Set{now: now, onRevoked: onRevoked, entries: map[string]time.Time{}}
}

// Revoked says whether a session was revoked.
func (s *Set) Revoked(sessionID string) bool {
	if s.size.Load() == 0 {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.entries[sessionID]
	return ok
}

// Add revokes a session until forgetAfter; zero for as long as a token can live.
func (s *Set) Add(sessionID string, forgetAfter time.Time) {
	now := s.now()
	if forgetAfter.IsZero() {
		forgetAfter = now.Add(keepUnknown)
	}
	s.mu.Lock()
	s.sweep(now)
	_, known := s.entries[sessionID]
	s.entries[sessionID] = forgetAfter
	s.size.Store(int64(len(s.entries)))
	s.mu.Unlock()
	if !known {
		s.onRevoked(sessionID)
	}
}

// Len is how many sessions are in the set.
func (s *Set) Len() int { return int(s.size.Load()) }

// sweep forgets what may be forgotten, at most once a minute. The caller holds mu.
func (s *Set) sweep(now time.Time) {
	if now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	for id, forgetAfter := range s.entries {
		if now.After(forgetAfter) {
			delete(s.entries, id)
		}
	}
}
