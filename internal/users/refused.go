// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package users

import "errors"

// NoUser is [ErrNoUser] after a login that was about a subject, which the source has
// found and not let in. It is for counting failures by user, whatever name the login
// called the user by. An empty subject is none.
func NoUser(subject string) error {
	if subject == "" {
		return ErrNoUser
	}
	return &refusedError{subject: subject}
}

// SubjectOf is the subject that a failed login was about, empty when it was about
// nobody or the source does not know. Whoever shows or logs it tells who exists.
func SubjectOf(err error) string {
	if e, ok := errors.AsType[*refusedError](err); ok {
		return e.subject
	}
	return ""
}

// refusedError prints as [ErrNoUser] does, whatever the verb.
type refusedError struct{ subject string }

func (*refusedError) Error() string { return ErrNoUser.Error() }

// GoString does not print the subject.
func (e *refusedError) GoString() string { return e.Error() }

func (*refusedError) Unwrap() error { return ErrNoUser }
