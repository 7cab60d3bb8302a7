// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// Login makes a session for the user whom the fields prove to be there, and its
// first token.
func (s *Service) Login(ctx context.Context, p *Policy, fields map[string]string) (Token, error) {
	user, err := p.Users.Authenticate(ctx, fields)
	if err != nil {
		return Token{}, loginError(err)
	}
	claims, err := p.claimsOf(user)
	if err != nil {
		return Token{}, err
	}
	began := session.New(p.UID, user.Subject, s.now(), p.Session, s.newTokenID())
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
