// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package refusal is the one kind of error that the issuer's parts answer with when
// a call cannot be granted: a reason of the closed set, a sentence for the caller,
// and apart from it what is for the log only. How it looks on the wire is up to
// package api.
package refusal

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// Error is a refusal.
type Error struct {
	Reason token.Reason
	// Status is the HTTP status; 0 is a failed authentication, which has the status
	// that the policy chose.
	Status int
	// Detail is for the caller. It holds no value that the caller sent.
	Detail string
	// RetryAfter is when it makes sense to come back; 0 for no answer.
	RetryAfter time.Duration
	// Err is for the log, never for the caller. It may be nil.
	Err error
}

// Error is for the log. The detail of an invalid request is left out: it may hold the
// name of a field, and that is the caller's own word.
func (e *Error) Error() string {
	text := string(e.Reason)
	if e.Detail != "" && e.Detail != e.Reason.Title() && e.Reason != token.RequestInvalid {
		text += ": " + e.Detail
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap gives what is for the log.
func (e *Error) Unwrap() error { return e.Err }

// Denied is a failed authentication of the user.
func Denied(reason token.Reason, detail string) *Error {
	return &Error{Reason: reason, Detail: detail}
}

// Token is a token that was refused by the verifier. What exactly was wrong is for
// the log; internal/token keeps token material out of it.
func Token(err error) *Error {
	var refused *token.Error
	if !errors.As(err, &refused) {
		return Unavailable("the token could not be checked", err)
	}
	return &Error{Reason: refused.Reason, Detail: refused.Reason.Title(), Err: errors.New(refused.Detail)}
}

// Invalid is a request that is not what it must be; the detail names the field and
// the remedy.
func Invalid(status int, format string, args ...any) *Error {
	return &Error{Reason: token.RequestInvalid, Status: status, Detail: fmt.Sprintf(format, args...)}
}

// Unavailable means that a part the issuer needs does not answer for now. Nobody is
// logged out because of it.
func Unavailable(detail string, err error) *Error {
	return &Error{Reason: token.IssuerUnavailable, Status: http.StatusServiceUnavailable, Detail: detail, RetryAfter: 2 * time.Second, Err: err}
}

// Elsewhere means that this issuer cannot do it and another one may: it has done nothing,
// so that whatever was asked may be asked again (RFC 9110 section 15.5.20).
func Elsewhere(detail string, err error) *Error {
	refused := Unavailable(detail, err)
	refused.Status = http.StatusMisdirectedRequest
	return refused
}

// Of finds the refusal in an error. An error that is none is a fault of ours: it
// gets status 500 and tells the caller nothing.
func Of(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Reason: token.IssuerUnavailable, Status: http.StatusInternalServerError, Detail: "the issuer failed; its log says why", Err: err}
}

// plainName is what the name of a field must look like to be repeated to the caller:
// a name, and not a value in the wrong place.
var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

// Field gives the name of a field that the caller made up, if it is fit to be shown.
func Field(name string) string {
	if plainName.MatchString(name) {
		return `"` + name + `"`
	}
	return "a field whose name is not plain"
}
