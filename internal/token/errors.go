// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import "errors"

// Error is why a token was refused. It never holds any part of the token.
type Error struct {
	// Reason is the one word for machines.
	Reason Reason
	// Detail says in a few fixed words what exactly was wrong.
	Detail string
}

// Error is the reason and the detail.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Detail }

// ReasonOf finds the reason in the chain of err; false when there is none.
func ReasonOf(err error) (Reason, bool) {
	if refused, ok := errors.AsType[*Error](err); ok {
		return refused.Reason, true
	}
	return "", false
}

// refuse takes only constants for detail, so that no token material gets into it.
func refuse(reason Reason, detail string) error { return &Error{Reason: reason, Detail: detail} }

// What can be wrong with a key that somebody else made.
var (
	// ErrNotAKey: there is no private key in what was given, or not in a form that is read.
	ErrNotAKey = errors.New("not a private key")
	// ErrWrongKeyType: a key, but not one for the algorithm.
	ErrWrongKeyType = errors.New("key does not fit the algorithm")
	// ErrKeyTooShort: an RSA modulus below [MinRSABits].
	ErrKeyTooShort = errors.New("RSA key is too short")
	// ErrKeyWeak: an RSA key of a faulty generator, which can be factored.
	ErrKeyWeak = errors.New("RSA key can be broken")
	// ErrKeyTooLong: an RSA modulus above [MaxRSABits].
	ErrKeyTooLong = errors.New("RSA key is too long")
)
