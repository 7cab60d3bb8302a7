// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package configmap keeps sessions, and counts attempts, in ConfigMaps of the operator's
// namespace: no database to run, and no secret readable by who may read ConfigMaps.
//
// It owns the shards, their sealing and how often they are written. It leaves the
// Secret with the sealing keys, and the deletion of a policy's shards, to the manager.
//
// # Layout
//
// The shards of a policy are ConfigMaps sessions-<policy UID>-<n>. A session's shard
// and data key come from a hash of its ID, so that neither ID nor subject can be read
// off; its value is one record, sealed with XChaCha20-Poly1305 and bound to policy,
// shard and data key. Whoever may write ConfigMaps here can delete sessions or put
// back an older record (which the refresh decision notices when the newer token is
// presented), but cannot forge, change, or move one.
//
// A record that does not authenticate is an unknown session. One that is sealed with
// a key that we lack, or in a newer format, is an outage: its owner is told to try
// again, not to log in. Both are kept as they are when the shard is rewritten.
//
// # Writes
//
// Each shard has one writer per instance, which gathers what arrives and writes it
// with one update under the shard's resourceVersion (group commit). On a conflict it
// reads the shard again and applies each pending operation to what it finds, where a
// swap whose version moved on loses. Writes are paced: at most WritesPerSecond in any
// second, shared by the instances that see each other write. Under load the batches grow, not
// the number of writes.
//
// When an update fails without an answer, it may have been made. Each operation
// writes a version of its own, and a record carries the version before it: so the
// writer reads the shard and sees whether its operation is there.
//
// # Reads
//
// Load reads the shard from the API server, because a decision on an old state would
// revoke a session whose newer token is presented. Loads that wait for the same shard
// share one read. A watch feeds the stream of revocations and the number of sessions,
// neither of which decides about a refresh.
//
// # Revocations
//
// A revocation gets a number that grows within its shard: the time in milliseconds,
// or one more than the last. A cursor is the last number seen of each shard, so
// a stream resumes exactly, at any instance, whatever the clocks say.
//
// An order that ends many sessions is one operation of each shard, so it is written
// once for each that has any of them.
//
// # Attempts
//
// One more ConfigMap, attempts-<policy UID>, holds a sealed table of what was tried of
// late. It is read and written like a shard, but with a fifth of the writes at most, so
// that a flood of guesses leaves the rest to the sessions (docs/adr/0018).
package configmap
