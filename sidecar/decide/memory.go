// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"hash/maphash"
	"strings"
	"sync"
)

const (
	shardCount = 16
	// entryBytes is what an entry takes beside its token and headers: claims, map
	// slots and pointers, measured generously.
	entryBytes = 1 << 10
)

// memory remembers verified tokens by the whole token, so that nothing about it can
// be confused with another. It belongs to one Policy and so to one pair of settings
// generation and key set version.
//
// It is bounded in bytes by two generations: when the young one is full, the old one
// is dropped and the young one becomes old. What is used moves to the young one. That
// costs no list and no clock, and an attacker who fills it with valid tokens only
// makes others verify again.
type memory struct {
	seed   maphash.Seed
	shards [shardCount]shard
}

type shard struct {
	mu         sync.RWMutex
	limit      int // bytes of one generation
	young, old map[string]*Identity
	youngBytes int
	oldBytes   int
}

func newMemory(bytes int) *memory {
	m := &memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].limit = bytes / shardCount / 2
	}
	return m
}

func (m *memory) shard(raw string) *shard {
	return &m.shards[maphash.String(m.seed, raw)%shardCount]
}

func (m *memory) get(raw string) (*Identity, bool) {
	s := m.shard(raw)
	s.mu.RLock()
	id, ok := s.young[raw]
	if ok {
		s.mu.RUnlock()
		return id, true
	}
	id, ok = s.old[raw]
	s.mu.RUnlock()
	if ok {
		m.put(raw, id)
	}
	return id, ok
}

func (m *memory) put(raw string, id *Identity) {
	// A front end's buffer may be behind raw.
	m.shard(raw).put(strings.Clone(raw), id)
}

func (s *shard) put(raw string, id *Identity) {
	size := entrySize(raw, id)
	if size > s.limit {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.young[raw]; ok {
		s.young[raw] = id
		return
	}
	if s.youngBytes+size > s.limit {
		s.old, s.oldBytes = s.young, s.youngBytes
		s.young, s.youngBytes = nil, 0
	}
	if s.young == nil {
		s.young = map[string]*Identity{}
	}
	s.young[raw] = id
	s.youngBytes += size
}

func entrySize(raw string, id *Identity) int {
	size := entryBytes + 2*len(raw)
	for _, h := range id.Headers {
		size += len(h.Value) + 32
	}
	return size
}

// size counts an entry that moved to the young generation twice until the old one goes.
func (m *memory) size() (tokens, bytes int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		tokens += len(s.young) + len(s.old)
		bytes += s.youngBytes + s.oldBytes
		s.mu.RUnlock()
	}
	return tokens, bytes
}
