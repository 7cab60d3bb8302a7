// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policies keeps the issuer's picture of the cluster: for each TokenPolicy
// the snapshot by which calls are served, made of its spec, the key ring of its
// SigningKey, its user source and its session store.
//
// It watches; it writes nothing. A snapshot is replaced as a whole, and calls that
// are under way finish on the one they began with. A policy that cannot be served,
// because it has no key that signs yet, is an outage to its callers and not a verdict
// on anybody's token.
package policies
