// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// Login makes a session for the user whom the fields prove to be there, and its
// first token. From is the address of the client, the zero value when nobody knows.
//
// A login that fails costs one attempt of each of its allowances (see [Allowance]);
// one that succeeds, that presents wrong fields, or about which nothing could be found
// out costs nothing. While the login is under way it holds all of them, so that of many
// at once no more are looked at than the limits allow.
func (s *Service) Login(ctx context.Context, p *Policy, fields map[string]string, from netip.Addr) (Token, error) {
	if source, ok := p.Users.(users.FieldChecker); ok {
		if err := source.CheckFields(fields); err != nil {
			return Token{}, loginError(err)
		}
	}
	started := s.now()
	taken := p.guesses(fields, from)
	if err := s.take(ctx, p, taken...); err != nil {
		return Token{}, err
	}
	user, err := s.authenticate(ctx, p, fields, taken)
	if err != nil && !errors.Is(err, users.ErrNoUser) {
		return Token{}, loginError(err)
	}
	last := p.guessed(fields, user, err)
	if refused := s.takeLast(ctx, p, last, taken); refused != nil {
		return Token{}, refused
	}
	if err != nil {
		return Token{}, loginError(err)
	}
	var returning sync.WaitGroup
	returning.Go(func() { s.giveBack(ctx, p, append(taken, last)...) })
	defer returning.Wait()
	return s.begin(ctx, p, user, started)
}

// authenticate asks the source, and gives back what was taken when nothing could be found
// out, also because of a panic: the fault is ours, and must not lock anybody out.
func (s *Service) authenticate(ctx context.Context, p *Policy, fields map[string]string, taken []attempt) (user users.User, err error) {
	answered := false
	defer func() {
		if !answered {
			s.giveBack(ctx, p, taken...)
		}
	}()
	user, err = p.Users.Authenticate(ctx, fields)
	answered = err == nil || errors.Is(err, users.ErrNoUser)
	return user, err
}

// takeLast takes the attempt of the subject. From the moment that the source has
// spoken all goes the same way whatever it has said: a caller that has gone, or an
// allowance that is used up, must not make right credentials cost less than wrong ones.
func (s *Service) takeLast(ctx context.Context, p *Policy, last attempt, taken []attempt) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTimeout)
	defer cancel()
	err := s.take(ctx, p, last)
	if err != nil && refusal.Of(err).Reason != token.RateLimited {
		s.giveBack(ctx, p, taken...)
	}
	return err
}

// begin makes the session. It is as old as the login: what somebody proved before an
// order to end sessions is ended by it, however long the proof took to check.
func (s *Service) begin(ctx context.Context, p *Policy, user users.User, started time.Time) (Token, error) {
	claims, err := p.claimsOf(user)
	if err != nil {
		return Token{}, err
	}
	began := session.New(p.UID, user.Subject, s.now(), p.Session, s.newTokenID())
	began.CreatedAt = started.UTC().Truncate(time.Second)
	began.Current.KeyID = p.Keys.Active.Public().ID
	began.Current.Claims = claims
	minted, err := p.answer(began, New)
	if err != nil {
		return Token{}, err
	}
	if err := p.Sessions.Create(ctx, began); err != nil {
		return Token{}, s.storeError(Create, err)
	}
	return minted, nil
}

// answer mints the session's current token.
func (p *Policy) answer(of session.Session, how How) (Token, error) {
	raw, err := p.mint(of)
	if err != nil {
		return Token{}, err
	}
	return Token{Raw: raw, ExpiresAt: of.Current.ExpiresAt, How: how, Subject: of.Subject, Session: of.ID}, nil
}

func loginError(err error) error {
	var fields *users.InvalidFieldsError
	switch {
	case errors.Is(err, users.ErrNoUser):
		return refusal.Denied(token.CredentialsInvalid, token.CredentialsInvalid.Title())
	case errors.Is(err, users.ErrBusy):
		return &refusal.Error{
			Reason: token.RateLimited, Status: http.StatusTooManyRequests, RetryAfter: 2 * time.Second,
			Detail: "too many logins are being checked: try again", Err: err,
		}
	case errors.As(err, &fields):
		refused := refusal.Invalid(http.StatusBadRequest, "%s", describeFields(fields))
		refused.Err = fields
		return refused
	}
	return refusal.Unavailable("the user source does not answer", err)
}

// maxNamed bounds how many of the caller's own field names are repeated.
const maxNamed = 4

func describeFields(e *users.InvalidFieldsError) string {
	var b strings.Builder
	if len(e.Missing) > 0 {
		b.WriteString("missing: " + strings.Join(e.Missing, ", ") + "; ")
	}
	if len(e.Unknown) > 0 {
		b.WriteString("unknown: ")
		for i, name := range e.Unknown[:min(len(e.Unknown), maxNamed)] {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(refusal.Field(name))
		}
		if len(e.Unknown) > maxNamed {
			b.WriteString(", …")
		}
		b.WriteString("; ")
	}
	b.WriteString("present exactly " + strings.Join(e.Expected, ", "))
	return b.String()
}
