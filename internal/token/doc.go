// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package token reads, verifies and mints the access tokens of Tokenward (JWT in
// JWS compact form, RFC 7519 and RFC 7515, with the profile of RFC 9068), and owns
// the keys and key sets that this takes (RFC 7517, RFC 7638).
//
// It is strict where the standards leave room, because a token that two readers
// understand in two ways is a way in. A token has exactly one accepted encoding: at
// most [MaxLength] bytes, two dots, canonical base64url, JSON without repeated
// names at any depth. The header's algorithm must be the one that the key named by
// "kid" was made for; header members that bring a key along (jwk, jku, x5c, x5u) are
// never looked at; "crit" and "b64" are refused. No claim is looked at before the
// signature is known to be good, and "expired" is reported only of a token that is
// right in every other respect, because such a token may buy a new one.
//
// The "typ" header must be "at+jwt" or "application/at+jwt", in this very case: RFC
// 9068 section 4 asks a verifier to take both. Tokenward mints the first.
//
// The package knows nothing of HTTP, sessions, policies or Kubernetes. Whether the
// session behind a token still lives is decided elsewhere; the life of a key is in
// package keyring. The signing methods come from golang-jwt, its parser is not used:
// it accepts what is refused here.
package token
