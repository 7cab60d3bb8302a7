// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package secret is the user source that reads a Kubernetes Secret with one key per
// user, each a JSON object (design section 7):
//
//	alice: {"password": "$argon2id$…", "phone": "+82…", "role": "admin"}
//
// It owns the format of an entry, what makes one broken, and the rule that no kind
// of "no" can be told from another. Fetching the Secret is the job of a [Reader],
// hashing that of a [Hasher].
package secret
