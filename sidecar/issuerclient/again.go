// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
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
)

// errElsewhere is an issuer that has done nothing and sends its callers to another one
// (RFC 9110 section 15.5.20). It closes the connection, so the next one may lead there.
var errElsewhere = errors.New("status 421: it sends its callers to another issuer")

// lostError is a call without an answer of use: the issuer was not reached, it died with
// the call at hand or is about to, or it lacks something that it needs.
type lostError struct {
	cause error
	// via is what it was sent over.
	via *http.Transport
	// unable: it lacks something, and says so.
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
// A refresh, a logout and a look at the keys may be made twice, whatever became of the
// first: the store makes one rotation of it (design section 4), and a session that has
// ended is as good as one that ends now. A login would count its attempt twice, so it is
// made again only if no issuer has begun with it.
func (c *Client) mayTryAgain(call protocol.Call, err error) (wait time.Duration, again bool) {
	if errors.Is(err, context.Canceled) {
		return 0, false // the caller has gone, which says nothing about the issuer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	lost, ok := errors.AsType[*lostError](err)
	if !ok {
		c.outage = outage{}
		return 0, false
	}
	now := c.Now()
	if lost.isFailing() {
		wait = c.leave(lost.via, now)
	}
	if now.Sub(c.outage.last) > calm {
		c.outage.since = now
	}
	c.outage.last = now
	if _, foreign := errors.AsType[*tls.CertificateVerificationError](err); foreign {
		return 0, false // it is there, and not ours
	}
	repeatable := call != protocol.CallLogin
	return wait, (repeatable || neverBegun(err)) && now.Add(wait).Sub(c.outage.since) < tryFor
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
