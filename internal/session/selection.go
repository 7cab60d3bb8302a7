// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package session

import "time"

// Selection says which sessions of a policy an order ends. Its zero value selects none.
type Selection struct {
	// Subject is whose sessions. It is ignored when AllSubjects is set, and selects
	// nobody when it is empty and AllSubjects is not.
	Subject string
	// AllSubjects selects the sessions of everybody.
	AllSubjects bool
	// CreatedUntil selects the sessions that were created at or before it. CreatedAt is
	// in whole seconds, so those of the same second are among them.
	CreatedUntil time.Time
}

// Includes says whether a session is selected.
func (w Selection) Includes(s Session) bool {
	of := w.AllSubjects || w.Subject != "" && w.Subject == s.Subject
	return of && !s.CreatedAt.After(w.CreatedUntil)
}
