// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// An issuer may lack what another one has, such as a way to the session store, and a
// connection to it lives as long as it does. So it is left; see ADR 0025.
const (
	// firstStay and lastStay bound for how long an issuer that is unable is stayed with.
	firstStay = 500 * time.Millisecond
	lastStay  = 30 * time.Second
	// settled is after how long at one issuer the next one that is unable is left at once.
	settled = 2 * lastStay
)

// leaving is when an issuer was left, and how soon after that the next one may be.
type leaving struct {
	last     time.Time
	patience time.Duration
}

// leave has the next call connect anew, perhaps to another issuer; what is under way
// goes on. While none of them is able that must not become a load of its own, so it may
// have to wait. That others are answered meanwhile changes nothing: it may be one session
// that no issuer can read.
func (c *Client) leave(via *http.Transport, now time.Time) (wait time.Duration) {
	if via != c.transport {
		return 0 // somebody else has left it
	}
	if now.Sub(c.leaving.last) > settled {
		c.leaving = leaving{}
	}
	if wait = c.leaving.last.Add(c.leaving.patience).Sub(now); wait > 0 {
		return wait
	}
	c.leaving = leaving{last: now, patience: min(max(2*c.leaving.patience, firstStay), lastStay)}
	go via.CloseIdleConnections() // not under the lock: it may take its time
	c.transport = nil
	if c.unfollow != nil {
		// It may not hear of revocations any more either.
		c.unfollow()
	}
	return 0
}

// follows notes how the stream of revocations is ended.
func (c *Client) follows(via *http.Transport, end context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unfollow = end
	if c.transport != via { // it was left meanwhile
		end()
	}
}

// stream ends its request when it is closed.
type stream struct {
	io.ReadCloser
	end context.CancelFunc
}

// Close implements [io.Closer].
func (s stream) Close() error {
	defer s.end()
	return s.ReadCloser.Close()
}

// leaveFor leaves the issuer that err is of, if it is to be left and may be by now.
func (c *Client) leaveFor(err error) {
	lost, ok := errors.AsType[*lostError](err)
	if !ok || !lost.isFailing() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(lost.via, c.Now())
}

// isFailing says that the issuer is there, and cannot do its work in time or at all.
func (e *lostError) isFailing() bool { return e.unable || errors.Is(e.cause, context.DeadlineExceeded) }
