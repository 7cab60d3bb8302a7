// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package issuer puts the token service together: login, refresh, logout, key set
// and revocations, for the sidecars of all namespaces (design section 2). It keeps
// nothing of its own, so it runs in as many replicas as are needed.
//
// The parts, each a package below this one:
//
//	caller      who is calling: TokenReview of the pod's token
//	policies    the snapshot of each TokenPolicy: spec, keys, users, sessions
//	granted     what is opened with a tenant's Secret
//	exchange    what a login, a refresh and a logout do
//	api         the same over HTTP
//	sealing     the keys by which stored sessions are sealed
//	report      the conditions UsersReady and StoreReady
//	refusal     the one kind of error
//
// The issuer alone reads private keys, user sources and session stores.
package issuer
