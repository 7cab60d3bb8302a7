// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

const (
	// silence is how long a stream may say nothing before it counts as lost.
	silence = 3 * protocol.HeartbeatInterval
	// StaleAfter is how long revocations may have been out of reach before readiness
	// detail and metrics say so.
	StaleAfter = 2 * silence
	// firstPause and lastPause bound the waiting between attempts. The last one is
	// below the five seconds in which a revocation must be everywhere.
	firstPause = 250 * time.Millisecond
	lastPause  = 4 * time.Second
	maxLine    = 64 << 10
)

// Follower follows the issuer's stream, from where it was after each interruption.
type Follower struct {
	Set *Set
	// Open opens the stream after a cursor, empty for everything still relevant.
	Open func(ctx context.Context, since string) (io.ReadCloser, error)
	// Report is told when the stream is lost, and when it is back (nil).
	Report func(err error)
	Now    func() time.Time

	mu     sync.Mutex
	status Status
}

// Status is how the stream is doing.
type Status struct {
	// Synced says that the stream is open and everything still relevant was received.
	Synced bool
	// LastHeard is when the last line came; zero before the first.
	LastHeard time.Time
}

// Status is how the stream is doing now.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	var cursor string
	pause, lost := firstPause, false
	for {
		heard, err := f.follow(ctx, &cursor, func() {
			if lost {
				f.Report(nil)
			}
			lost = false
		})
		if ctx.Err() != nil {
			return
		}
		if heard {
			pause = firstPause
		}
		if _, refused := token.ReasonOf(err); refused {
			// A cursor that the issuer does not take must not lock us out for ever.
			cursor = ""
		}
		if !lost {
			f.Report(err)
			lost = true
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2)) //nolint:gosec // spreading load needs no secret randomness
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, lastPause)
	}
}

var errSilent = errors.New("the stream was silent for too long")

// follow reads one stream to its end. heard says that a line came.
func (f *Follower) follow(ctx context.Context, cursor *string, onLine func()) (heard bool, err error) {
	defer f.note(func(s *Status) { s.Synced = false })
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()

	stream, err := f.Open(ctx, *cursor)
	if err != nil {
		return false, err
	}
	defer func() { _ = stream.Close() }()
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 0, 1024), maxLine)
	for lines.Scan() {
		var event protocol.RevocationEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return heard, fmt.Errorf("a line of the stream is not an event: %w", err)
		}
		watchdog.Reset(silence)
		f.take(event, cursor)
		heard = true
		onLine()
	}
	switch {
	case context.Cause(ctx) != nil:
		return heard, context.Cause(ctx)
	case lines.Err() != nil:
		return heard, fmt.Errorf("read the stream: %w", lines.Err())
	}
	return heard, io.EOF
}

func (f *Follower) take(event protocol.RevocationEvent, cursor *string) {
	if event.SessionID != "" {
		f.Set.Add(event.SessionID, event.ForgetAfter)
	}
	if event.Cursor != "" {
		*cursor = event.Cursor
	}
	f.note(func(s *Status) {
		s.LastHeard = f.Now()
		s.Synced = s.Synced || event.SessionID == ""
	})
}

func (f *Follower) note(change func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}
