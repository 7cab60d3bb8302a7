// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package attempts limits how often something may be tried: logins to one account,
// logins from one address. It owns the arithmetic and the contract of whoever counts;
// the session stores count, so that all issuers that share a store share the limits.
//
// An allowance is the generic cell rate algorithm (ITU-T I.371): one moment per key,
// at which the allowance is whole again. Nothing has to run for it to grow back.
package attempts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// Limit allows Burst attempts at once, and one more each Interval after that.
type Limit struct {
	// Burst is at least 1.
	Burst int
	// Interval is at least a millisecond; moments are kept in whole milliseconds.
	Interval time.Duration
}

// Skew is how far the clocks of those who share a key may differ. A counter that does
// the arithmetic of [Limit.Take] at a server needs it there.
const Skew = time.Minute

// Take takes one attempt out of the allowance that is whole again at the moment whole
// (zero: it is whole). It returns the new moment, and how long to wait when nothing is
// left. The moment stays as it was then, but for one that cannot be: whoever keeps the
// moments keeps next in either case.
func (l Limit) Take(whole, now time.Time) (next time.Time, wait time.Duration) {
	now = now.Truncate(time.Millisecond)
	usedUp := now.Add(time.Duration(l.Burst) * l.Interval)
	switch {
	case whole.Before(now):
		whole = now
	case whole.After(usedUp.Add(Skew)):
		// It comes from a limit that was larger, or from a clock that was wrong, and would
		// lock the key for as long as that. What another clock explains stays: were it cut
		// to ours, whoever asks a slow clock and a fast one in turn would never be refused.
		whole = usedUp
	}
	next = whole.Add(l.Interval)
	if wait = next.Sub(usedUp); wait > 0 {
		return whole, wait
	}
	return next, 0
}

// GiveBack undoes one Take.
func (l Limit) GiveBack(whole time.Time) time.Time { return whole.Add(-l.Interval) }

// Key names what is counted within a policy: 22 characters of base64url. It is a
// digest, so that a store learns neither account names nor addresses.
type Key string

// NewKey makes the key of a value of a kind, for example an account's name.
func NewKey(policy, kind, value string) Key {
	h := sha256.New()
	for _, part := range []string{"tokenward attempts", policy, kind, value} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return Key(base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16]))
}

// Counter keeps the moments of one policy's keys; any number of instances share them.
// It may forget a key whose moment has passed, and should. The package countertest holds
// a counter to this.
type Counter interface {
	// Take is [Limit.Take] as one atomic step: of many at once no more succeed than the
	// limit allows. A positive wait says that nothing was left and nothing was taken. An
	// error says that nobody knows; the attempt may have been counted.
	Take(ctx context.Context, key Key, limit Limit) (wait time.Duration, err error)
	// GiveBack is [Limit.GiveBack] as one atomic step. A key that is not kept any more
	// stays so.
	GiveBack(ctx context.Context, key Key, limit Limit) error
}
