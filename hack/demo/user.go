// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// user is somebody who may log in.
type user struct {
	ID, Phone, Password, Role string
}

var (
	alice = user{ID: "alice", Phone: "+82-10-1234-5678", Password: "correct horse battery staple", Role: "admin"}
	bob   = user{ID: "bob", Phone: "+82-10-8765-4321", Password: "a quite different sentence", Role: "reader"}
)

func (u user) credentials() string {
	return fmt.Sprintf(`{"id":%q,"phone":%q,"password":%q}`, u.ID, u.Phone, u.Password)
}
