// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"time"
)

// The errors of a [Store] that say something about a session. Any other error means
// that the store could not answer: the caller replies issuer_unavailable and nobody
// is logged out for it.
var (
	// ErrNotFound: there is no such session, or none that can be trusted.
	ErrNotFound = errors.New("session not found")
	// ErrExists: Create met a session with that ID.
	ErrExists = errors.New("session already exists")
	// ErrStale: Swap came too late, another one changed the session.
	ErrStale = errors.New("session was changed by another")
	// ErrFull: the store takes no more sessions for now.
	ErrFull = errors.New("session store is full")
)

// Store keeps the sessions of one policy; any number of instances, in any number of
// processes, share them. It is linearizable: an operation that starts after another
// one has returned, at whichever instance, sees what that one did.
//
// Every method returns at once when its context ends. What it had begun may still
// take effect then.
//
// The package storetest holds a store to this.
type Store interface {
	// Create adds a session; Version is ignored. Errors: [ErrExists], [ErrFull].
	Create(ctx context.Context, s Session) error

	// Load returns a session as it was at some moment after the call began.
	// Errors: [ErrNotFound].
	Load(ctx context.Context, id ID) (Session, error)

	// Swap replaces the session of next.ID if its Version still is next.Version, and
	// returns it with its new Version. ID, Policy and CreatedAt stay as they are.
	//
	// A revocation wins: when next.Revoked is set the stored session is revoked
	// whatever its Version, as [Session.RevokedLike] says, and everything else in next is
	// ignored; and a revoked session never changes again, the first revocation stays.
	// Revoking it again succeeds and returns what is stored.
	//
	// Errors: [ErrStale] together with the session that is stored instead,
	// [ErrNotFound], [ErrFull] when next would not fit.
	Swap(ctx context.Context, next Session) (Session, error)

	// Revocations sends the revoked sessions whose tokens may still be alive: first
	// those that happened after since (all, if it is empty or not understood), then
	// an event with Synced set, then each new one when it happens. A cursor of one
	// instance is good at all of them. An event may come more than once, never less.
	//
	// The channel is closed when ctx ends or the store is closed; the receiver must
	// not assume that everything was sent unless it has seen Synced.
	Revocations(ctx context.Context, since Cursor) (<-chan Event, error)

	Revoker
}

// Revoker is the part of a [Store] that ends many sessions at once.
type Revoker interface {
	// RevokeWhere revokes, as [Session.Revoke] does, every session that which includes
	// and whose Create has returned before the call; those that are created meanwhile may
	// be among them. When it returns without an error none of them is live, and none
	// comes back: a revocation wins over a Swap, as in [Store.Swap]. Sessions that were
	// revoked before stay as they are and are not counted. Each one that is counted comes
	// through Revocations.
	//
	// With an error some may be revoked, and revoked is how many are known to be. With an
	// [*UnreadableError] it is all that can be read.
	// Calling again is fine, and does the rest. It works in steps of bounded size and
	// ends with ctx between them.
	RevokeWhere(ctx context.Context, which Selection, as Revocation) (revoked int, err error)
}

// Cursor is a place in the stream of revocations: opaque, safe in a URL, at most 1 KiB.
type Cursor string

// Event is one revocation, or the news that all older ones were sent.
type Event struct {
	// Cursor resumes after this event.
	Cursor Cursor
	ID     ID
	At     time.Time
	// ForgetAfter is when the session's last token is dead ([Session.ForgetAfter]).
	ForgetAfter time.Time
	// Synced events have no ID and no times.
	Synced bool
}
