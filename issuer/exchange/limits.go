// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// countTimeout bounds counting that goes on although the caller may have gone.
const countTimeout = 5 * time.Second

// Allowance is what a login was limited by, for metrics.
type Allowance string

// The allowances. A login that fails has taken one attempt of each.
const (
	// OfAccount is that of the name that the login gives, whether there is such a user
	// or not.
	OfAccount Allowance = "account"
	// OfAddress is that of the client's address.
	OfAddress Allowance = "address"
	// OfSubject is that of the user whom the source has found, by whatever name.
	OfSubject Allowance = "subject"
)

// Allowances lists every allowance.
func Allowances() []Allowance { return []Allowance{OfAccount, OfAddress, OfSubject} }

// attempt is one attempt of an allowance.
type attempt struct {
	of    Allowance
	key   attempts.Key
	limit attempts.Limit
}

func (p *Policy) attempt(of Allowance, kind, value string, limit attempts.Limit) attempt {
	return attempt{of: of, key: attempts.NewKey(string(p.UID), kind, value), limit: limit}
}

// guesses are the attempts that a login takes before anything is looked at.
func (p *Policy) guesses(fields map[string]string, from netip.Addr) []attempt {
	return []attempt{
		p.attempt(OfAccount, "account", foldAccount(fields[users.IDField]), p.PerAccount),
		p.attempt(OfAddress, "address", network(from), p.PerAddress),
	}
}

// guessed is the attempt that a login takes once the source has said whom it was
// about: err is nil or of [users.ErrNoUser]. A login that was about nobody takes one of
// nobody's allowance under this name, so that the work is the same and nobody's
// allowance ends when the account's does.
func (p *Policy) guessed(fields map[string]string, user users.User, err error) attempt {
	subject := user.Subject
	if err != nil {
		subject = users.SubjectOf(err)
	}
	if subject == "" {
		return p.attempt(OfSubject, "nobody", foldAccount(fields[users.IDField]), p.PerAccount)
	}
	return p.attempt(OfSubject, "subject", subject, p.PerAccount)
}

// take takes all that is wanted, or nothing. An error is a refusal: rate_limited, or
// that the store does not answer.
func (s *Service) take(ctx context.Context, p *Policy, wanted ...attempt) error {
	if p.Attempts == nil {
		return nil
	}
	for _, a := range wanted {
		if wait := s.usedUp.wait(a, s.now()); wait > 0 {
			return s.limited(a, wait)
		}
	}
	waits, errs := make([]time.Duration, len(wanted)), make([]error, len(wanted))
	var counting sync.WaitGroup
	for i, a := range wanted {
		counting.Go(func() { waits[i], errs[i] = p.Attempts.Take(ctx, a.key, a.limit) })
	}
	counting.Wait()
	return s.settle(ctx, p, wanted, waits, errs)
}

// settle gives back what was taken unless all of it was.
func (s *Service) settle(ctx context.Context, p *Policy, wanted []attempt, waits []time.Duration, errs []error) error {
	var taken, usedUp []attempt
	for i, a := range wanted {
		switch {
		case errs[i] != nil: // whether it was counted nobody knows: giving it back could be too much
		case waits[i] > 0:
			s.usedUp.remember(a, waits[i], s.now())
			usedUp = append(usedUp, a)
		default:
			taken = append(taken, a)
		}
	}
	if len(taken) == len(wanted) {
		return nil
	}
	s.giveBack(ctx, p, taken...)
	if len(taken)+len(usedUp) < len(wanted) {
		return s.storeError(Take, errors.Join(errs...))
	}
	return s.limited(usedUp[0], slices.Max(waits))
}

// limited is one refusal for whatever was used up: which it was is for the log.
func (s *Service) limited(by attempt, wait time.Duration) error {
	s.observer.LoginLimited(by.of)
	return &refusal.Error{
		Reason: token.RateLimited, Status: http.StatusTooManyRequests, RetryAfter: wait,
		Detail: "too many failed logins: wait for as long as Retry-After says",
		Err:    fmt.Errorf("the allowance of the %s is used up", by.of),
	}
}

// giveBack undoes what a login has taken, also for a caller that has gone. It fails
// nobody's login: an attempt that cannot be given back grows back by itself.
func (s *Service) giveBack(ctx context.Context, p *Policy, taken ...attempt) {
	if p.Attempts == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTimeout)
	defer cancel()
	var counting sync.WaitGroup
	for _, a := range taken {
		counting.Go(func() {
			s.usedUp.forget(a)
			if err := p.Attempts.GiveBack(ctx, a.key, a.limit); err != nil {
				s.observer.StoreFailed(GiveBack)
			}
		})
	}
	counting.Wait()
}
