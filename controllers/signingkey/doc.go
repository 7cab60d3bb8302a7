// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package signingkey makes a SigningKey true: it has keys made or imported,
// published, activated, retired and removed when their time comes, and keeps them in
// the operator's namespace, out of every tenant's reach.
//
// The life of the keys is decided by internal/keyring, a pure function of what is
// there and of now. This package owns where the key ring lies and in which order it
// is written:
//
//	Secret skey-<UID>       the truth, with private halves; written first, only if it is
//	                        still what was read, so two managers never both add a key
//	ConfigMap skey-<UID>    the public record: what policies and issuers read keys from,
//	                        and what is left when the Secret is lost
//	status, Events          a report
//
// A crash between two of them is healed by the next reconciliation, which finds the
// later ones behind the earlier. A key therefore signs nothing before the ring that
// has it is stored, and is told to nobody before that either.
package signingkey
