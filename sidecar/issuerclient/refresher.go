// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/flight"
	"github.com/tokenward/tokenward/internal/protocol"
)

const (
	// shareAnswer is how long an answer goes to those who come a moment after it:
	// requests sent together do not arrive together.
	shareAnswer = time.Second
	// earlyWait is how long a request whose token is still good waits for a new one.
	earlyWait = time.Second
	// earlyPause is how long a session is left alone after an early refresh failed.
	earlyPause = 5 * time.Second
	// maxNotes bounds each of the two memories. Forgetting costs a call, nothing else.
	maxNotes = 4096
)

// Key is what a refresh is about. It is never a joined string: two sessions must not
// be able to meet in one.
type Key struct {
	PolicyUID  string
	SessionID  string
	Generation int64
	// TokenID tells apart the two tokens that a store which went back has made of one
	// generation; the issuer refuses one of them.
	TokenID string
}

// Refresher buys new tokens, one for all requests that bring the same token.
//
// Who comes while a call is under way, or within [shareAnswer] of its end, gets an answer
// that the issuer has made up before: at most [callTimeout] and shareAnswer ago. Within
// that time the session may have moved on, or have ended, elsewhere. What is handed out is
// the successor that the issuer made for this very token, which by then may be the
// session's last but one, and never of a session that is known here to have ended or to
// have moved on: the caller looks for the one, and share forgets for the other.
type Refresher struct {
	Client *Client

	flights flight.Group[Key, protocol.TokenResponse]
	mu      sync.Mutex
	shared  map[Key]answer
	paused  map[Key]time.Time
}

type answer struct {
	response protocol.TokenResponse
	until    time.Time
}

// Refresh exchanges a token whose signature was verified. Errors are a *[Refusal] or
// wrap [ErrUnavailable].
func (r *Refresher) Refresh(ctx context.Context, key Key, raw string) (protocol.TokenResponse, error) {
	if response, ok := r.recent(key); ok {
		return response, nil
	}
	response, _, err := r.flights.Do(ctx, key, callTimeout, func(ctx context.Context) (protocol.TokenResponse, error) {
		// One who looked for an answer before the last flight landed begins the next.
		if response, ok := r.recent(key); ok {
			return response, nil
		}
		response, err := r.Client.refresh(ctx, raw)
		if err == nil {
			r.share(key, response)
		}
		return response, err
	})
	return response, err
}

// RefreshEarly tries the same for a token that is still good. It gives up soon, and
// after a failure leaves the session alone for a while: false means to go on with
// the old token.
func (r *Refresher) RefreshEarly(ctx context.Context, key Key, raw string) (protocol.TokenResponse, bool, error) {
	if r.isPaused(key) {
		return protocol.TokenResponse{}, false, nil
	}
	waiting, cancel := context.WithTimeout(ctx, earlyWait)
	defer cancel()
	response, err := r.Refresh(waiting, key, raw)
	if err != nil {
		if ctx.Err() == nil { // otherwise the caller failed, not the refresh
			r.pause(key)
		}
		return protocol.TokenResponse{}, false, err
	}
	return response, true, nil
}

// Wait returns when no refresh is under way.
func (r *Refresher) Wait() { r.flights.Wait() }

func (r *Refresher) recent(key Key) (protocol.TokenResponse, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.shared[key]
	if !ok || !r.Client.Now().Before(a.until) {
		return protocol.TokenResponse{}, false
	}
	return a.response, true
}

func (r *Refresher) share(key Key, response protocol.TokenResponse) {
	now := r.Client.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shared == nil || len(r.shared) >= maxNotes {
		r.shared = map[Key]answer{}
	}
	for k, a := range r.shared {
		if !now.Before(a.until) || k.PolicyUID == key.PolicyUID && k.SessionID == key.SessionID && k.Generation < key.Generation {
			delete(r.shared, k)
		}
	}
	r.shared[key] = answer{response: response, until: now.Add(shareAnswer)}
}

func (r *Refresher) isPaused(key Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Client.Now().Before(r.paused[key])
}

func (r *Refresher) pause(key Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused == nil || len(r.paused) >= maxNotes {
		r.paused = map[Key]time.Time{}
	}
	r.paused[key] = r.Client.Now().Add(earlyPause)
}
