// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package session owns the server-side session: what it holds, what a refresh does
// to it, and what a store of sessions must promise. The session is the refresh
// token: it never leaves the cluster, a client only ever holds access tokens.
//
// It knows no HTTP, no signature and no database. Tokens reach it verified
// (internal/token), a caller mints what a [Verdict] says, and the stores live in
// the packages below (memory, configmap), held to one contract by storetest.
//
// # A refresh
//
// [Decide] is a pure function; [Store.Swap] makes its verdict true, and the answer
// leaves after the swap. A crash in between is healed by the replay.
//
//	                      presented (gen, jti) is …
//	                     ┌────────────────────────────────────────────────┐
//	                     │ current: ROTATE, swap in gen+1                  │
//	 login               ▼                                                │
//	──────► ┌──────────────────────────┐                                  │
//	 Create │ live                     ├──────────────────────────────────┘
//	        │   current  gen n    jti  │
//	        │   previous gen n-1  jti  ├──┐ previous, within grace: REPLAY of
//	        └─┬──────────┬─────────────┘◄─┘ the current token, nothing stored
//	          │          │
//	          │          │ older, and expired itself: REVOKE (theft), or DENY
//	          │          │   where the policy says so
//	          │          │ older, not yet expired:    DENY, the session lives on
//	          │          │ newer than the store, or the same generation with
//	          │          │   another jti:             REVOKE (the store went back)
//	          │          │ logout, removed user, administrator
//	          │          ▼
//	          │   ┌───────────┐  kept until the last access token is dead
//	          │   │ revoked   ├───────────────┐
//	          │   └───────────┘               ▼
//	          │ idle, or past its end   ┌───────────┐
//	          └────────────────────────►│ forgotten │  DENY: unknown session
//	             DENY: expired          └───────────┘
//
// Within one rule the order is that of the list in [Decide]: a session that is
// revoked or has ended is decided before the token is looked at.
//
// # Times
//
// Everything stored is in whole seconds, as in a token (NumericDate, RFC 7519
// section 2), and Decide cuts now to the second before it compares. A bound such as
// the grace is therefore never shorter than configured, and at most a second longer.
// Generations are put in order by their number, never by a time.
package session
