// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
)

const (
	// tryFor is for how long after the first call that was lost others are tried again:
	// longer than nodes lead connections to an issuer that has died. In a longer outage
	// clients are told at once.
	tryFor = 3 * time.Second
	// calm is after how long without a lost call the next one is a new outage.
	calm = 10 * time.Second
	// firstPause and lastPause bound the waiting between attempts.
	firstPause = 50 * time.Millisecond
	lastPause  = 400 * time.Millisecond
	// firstStay and lastStay bound for how long an issuer that is unable is stayed with.
	firstStay = 500 * time.Millisecond
	lastStay  = 30 * time.Second
	// settled is after how long at one issuer the next one that is unable is left at once.
	settled = 2 * lastStay
)

// errElsewhere is an issuer that has done nothing and sends its callers to another one
// (RFC 9110 section 15.5.20). It closes the connection, so the next one may lead there.
var errElsewhere = errors.New("status 421: it sends its callers to another issuer")

// lostError is a call without an answer of use: the issuer was not reached, it died with
// the call at hand or is about to, or it lacks something that it needs.
type lostError struct {
	cause error
	// unable: it lacks something. What one issuer does not reach another one may.
	unable bool
}

// Error says what happened.
func (e *lostError) Error() string {
	if e.unable {
		return e.cause.Error()
	}
	return fmt.Sprintf("%v: %v", ErrUnavailable, e.cause)
}

// Unwrap is for [errors.Is].
func (e *lostError) Unwrap() []error { return []error{ErrUnavailable, e.cause} }

// outage is a time in which calls are lost.
type outage struct{ since, last time.Time }

// mayTryAgain says whether a call that ended with err is to be made once more, at another
// issuer perhaps, and how long that has to wait at least. A request of a client must not
// fail because one of several issuers has.
//
// A refresh and a look at the keys may be made twice, whatever became of the first: the
// store makes one rotation of it (design section 4). A login would count its attempt
// twice, and a second logout finds no session: these are made again only if no issuer
// has begun with them.
func (c *Client) mayTryAgain(call protocol.Call, err error) (wait time.Duration, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost, ok := errors.AsType[*lostError](err)
	if !ok {
		c.outage = outage{}
		return 0, false
	}
	now := c.Now()
	if lost.unable {
		wait = c.leave(now)
	}
	if now.Sub(c.outage.last) > calm {
		c.outage.since = now
	}
	c.outage.last = now
	if _, foreign := errors.AsType[*tls.CertificateVerificationError](err); foreign {
		return 0, false // it is there, and not ours
	}
	repeatable := call == protocol.CallRefresh || call == protocol.CallKeys
	return wait, (repeatable || neverBegun(err)) && now.Add(wait).Sub(c.outage.since) < tryFor
}

// leaving is when an issuer was left, and how soon after that the next one may be.
type leaving struct {
	last     time.Time
	patience time.Duration
}

// leave has the next call connect anew, perhaps to another issuer; what is under way
// goes on. While none of them is able that must not become a load of its own, so it may
// have to wait. That others are answered meanwhile changes nothing: it may be one session
// that no issuer can read.
func (c *Client) leave(now time.Time) (wait time.Duration) {
	if now.Sub(c.leaving.last) > settled {
		c.leaving = leaving{}
	}
	if wait = c.leaving.last.Add(c.leaving.patience).Sub(now); wait > 0 {
		return wait
	}
	c.leaving = leaving{last: now, patience: min(max(2*c.leaving.patience, firstStay), lastStay)}
	if c.transport != nil {
		c.transport.CloseIdleConnections()
		c.transport = nil
	}
	return 0
}

// tryAgain waits, leaves an issuer that was unable, and says whether there is time left.
func (c *Client) tryAgain(ctx context.Context, wait, pause time.Duration) bool {
	if !sleep(ctx, max(wait, pause)) {
		return false
	}
	if wait > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.leave(c.Now()) // unless another call has just done so
	}
	return true
}

// neverBegun says that there was no connection to send a call over, or that the issuer
// says it has done nothing.
func neverBegun(err error) bool {
	_, ok := errors.AsType[*connectError](err)
	return ok || errors.Is(err, errElsewhere)
}

// sleep waits, and says whether ctx leaves time for another attempt.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
