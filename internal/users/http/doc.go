// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package http is the user source that asks a service of the policy's owner (design
// section 7). It posts one of two JSON objects to one https URL:
//
//	{"action": "authenticate", "fields": {"id": "alice", "password": "…"}}
//	{"action": "lookup", "subject": "alice"}
//
// and takes 200 with a JSON object for a user:
//
//	{"subject": "alice", "disabled": false, "attributes": {"role": "admin"}}
//
// At a login 401, 403 and 404 mean that there is no such user, or that the
// credentials are wrong. At a lookup only 404 with a JSON body means that the user was
// removed: a wrong bearer token answers 401, and a proxy with no route answers 404 in
// HTML, and neither may end a session. Everything else is an outage.
//
// It owns these two exchanges and their limits. Which user is who, and that "no such
// user" and "wrong password" take one time, is up to the service; where connections may go
// is decided by the dialler that it is given.
package http
