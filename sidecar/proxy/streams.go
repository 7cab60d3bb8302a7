// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// Streams are the exchanges of unknown length that authenticated callers have open,
// by session. It is safe for concurrent use.
type Streams struct {
	mu        sync.Mutex
	bySession map[string]map[*stream]struct{}
	count     int
}

type stream struct {
	end   func()
	ended atomic.Pointer[token.Reason]
	timer *time.Timer
}

func (s *stream) wasEnded() bool { return s != nil && s.ended.Load() != nil }

// endReason is why the stream was cut.
func (s *stream) endReason() token.Reason {
	if !s.wasEnded() {
		return token.SessionRevoked
	}
	return *s.ended.Load()
}

// cut ends the stream once.
func (s *stream) cut(reason token.Reason) {
	if s.ended.CompareAndSwap(nil, &reason) {
		s.end()
	}
}

// NewStreams makes an empty collection.
func NewStreams() *Streams { return &Streams{bySession: map[string]map[*stream]struct{}{}} }

// End cuts all streams of a session. It does not wait for them.
func (s *Streams) End(sessionID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.bySession[sessionID] {
		st.cut(token.SessionRevoked)
	}
}

// Len is how many there are.
func (s *Streams) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *Streams) add(sessionID string, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bySession[sessionID] == nil {
		s.bySession[sessionID] = map[*stream]struct{}{}
	}
	s.bySession[sessionID][st] = struct{}{}
	s.count++
}

func (s *Streams) remove(sessionID string, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bySession[sessionID], st)
	if len(s.bySession[sessionID]) == 0 {
		delete(s.bySession, sessionID)
	}
	s.count--
}

// beginStream makes the exchange end with its session.
func (x *exchange) beginStream() {
	id := x.verdict.Identity
	if x.stream != nil || id == nil {
		return
	}
	stop := x.stop
	st := &stream{end: func() {
		x.Metrics.StreamEnded()
		stop(errStreamEnded)
		x.endBody() // the transport waits for a read of the body to return
	}}
	if !x.policy.Refreshes() {
		st.timer = time.AfterFunc(x.policy.EndsAt(id.Claims).Sub(x.Now()), func() { st.cut(token.TokenExpired) })
	}
	x.stream = st
	x.Streams.add(id.Claims.SessionID, st)
	// It may have been revoked between the check of its token and here.
	if x.Revocations.Revoked(id.Claims.SessionID) {
		st.cut(token.SessionRevoked)
	}
}

func (x *exchange) endStream() {
	if x.stream == nil {
		return
	}
	if x.stream.timer != nil {
		x.stream.timer.Stop()
	}
	x.Streams.remove(x.verdict.Identity.Claims.SessionID, x.stream)
}
