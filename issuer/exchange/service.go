// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tokenward/tokenward/internal/flight"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/refusal"
)

const (
	// maxAttempts bounds how often one call reads a session again after it lost a
	// swap. Each loss means that another call won, so more than a few mean that
	// something is broken.
	maxAttempts = 8

	refreshTimeout = 10 * time.Second
)

// Operation on a session store, for metrics.
type Operation string

// The operations.
const (
	Create Operation = "create"
	Load   Operation = "load"
	Swap   Operation = "swap"
	Watch  Operation = "watch"
	// Take and GiveBack count attempts to log in.
	Take     Operation = "take"
	GiveBack Operation = "give_back"
)

// Operations lists every operation.
func Operations() []Operation { return []Operation{Create, Load, Swap, Watch, Take, GiveBack} }

// Observer is told what goes wrong below the answers.
type Observer interface {
	// StoreFailed is called when a store could not do its work; a full store, a lost
	// swap and an unknown session are no failures.
	StoreFailed(Operation)
	// LoginLimited is called for each login that was refused because of what failed before.
	LoginLimited(Allowance)
}

// How a token came to be.
type How string

// The ways.
const (
	// New: a login.
	New How = "new"
	// Rotated: this call rotated the session.
	Rotated How = "rotated"
	// Replayed: another call had rotated the session, this one got its token.
	Replayed How = "replayed"
	// Joined: another call in this process was just getting the token.
	Joined How = "joined"
)

// Token is what a login or a refresh gives.
type Token struct {
	// Raw is the access token.
	Raw string
	// ExpiresAt is its "exp".
	ExpiresAt time.Time
	How       How
	// Subject and Session are for the log.
	Subject string
	Session session.ID
}

// Service does logins, refreshes and logouts. All its state that matters is in the
// session stores. Its errors are *refusal.Error, or the context's own. It is safe for
// concurrent use.
type Service struct {
	now        func() time.Time
	newTokenID func() string
	observer   Observer
	refreshes  flight.Group[refreshKey, shared]
	// moments puts calls and flights into an order.
	moments atomic.Int64
	usedUp  usedUp
}

// refreshKey is what two refreshes have in common that get one answer.
type refreshKey struct {
	policy     session.PolicyID
	session    session.ID
	generation int64
	token      string
}

// NewService makes a service. newTokenID makes the "jti" of a token, never twice the same.
func NewService(now func() time.Time, newTokenID func() string, observer Observer) *Service {
	return &Service{now: now, newTokenID: newTokenID, observer: observer}
}

// Wait returns when no refresh is under way any more.
func (s *Service) Wait() { s.refreshes.Wait() }

// storeError makes a refusal of a store's error.
func (s *Service) storeError(operation Operation, err error) error {
	switch {
	case errors.Is(err, session.ErrFull):
		return &refusal.Error{
			Reason: token.StoreFull, Status: http.StatusServiceUnavailable, RetryAfter: time.Minute,
			Detail: "the session store is full: raise its limit, which the condition StoreReady of the TokenPolicy names, or wait for sessions to end", Err: err,
		}
	case errors.Is(err, session.ErrNotFound):
		return &refusal.Error{Reason: token.SessionUnknown, Detail: token.SessionUnknown.Title(), Err: err}
	}
	if !errors.Is(err, context.Canceled) {
		s.observer.StoreFailed(operation)
	}
	return refusal.Unavailable("the session store does not answer", err)
}

// contended is the refusal after maxAttempts lost swaps.
func contended() error {
	return refusal.Unavailable("the session is being changed by too many calls at once", session.ErrStale)
}
