// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package password owns hashes of passwords: argon2id (RFC 9106) in the PHC string
// format and bcrypt, which parameters of them are accepted, and how many are
// computed at one time.
//
// It does not know users: whose hash it is, and what happens when there is none, is
// decided by the sources.
package password
