// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package redis keeps sessions in a Redis that the user runs: one server, a Sentinel
// group, or a Redis Cluster.
//
// It owns the keys below its prefix, the scripts that change them, and how errors of
// Redis are told to people. It leaves to others where address and credentials come
// from, and when to open and close a store.
//
// # Keys
//
//	<prefix>{<policy UID>}:s:<session ID>   a record, as one string
//	<prefix>{<policy UID>}:revoked          the policy's revocations, as a stream
//	<prefix>{<policy UID>}:ids              the session IDs, as a sorted set without scores
//	<prefix>{<policy UID>}:a:<key>          an allowance of attempts, as one string
//
// The hash tag puts a policy into one slot, so that one script can revoke a session
// and say so on the stream. On a Cluster a policy is therefore bound to one node;
// different policies spread over all. A node's one core does some ten thousand swaps
// a second, far more than one policy sees.
//
// A record is a line that the scripts read, a line of JSON, and the claims as they
// were minted, to the byte:
//
//	1 <version> <version before> <keep until> <tokens dead after> <created> <revoked at> <reason>
//	{"subject":"alice","generation":3,…}
//	{"role":"admin"}
//
// Records are not sealed, other than those of the configMap store: Redis has users
// and rights of its own, while ConfigMaps are read by many (ADR 0019).
//
// The IDs are written with each login, in one script, so that an order finds every
// session without a SCAN, which would read everybody's keys and forget where it was at
// a failover. IDs are put in order by themselves: whoever reads them page by page misses
// none. What has died is taken out by the logins of others. A refresh does not touch the
// index, so that it goes on while a Cluster moves a slot.
//
// Every key has a time to live. Nobody has to clean up, not even after a policy was
// deleted.
//
// # One order for all
//
// Every change is one script and Redis runs one at a time, which makes the store
// linearizable as long as there is one primary. Reads go to the primary too. The
// client repeats a command whose answer was lost; as each change writes a version of
// its own, and keeps the one before it, the script sees that it was made already.
//
// # When Redis goes back
//
// Replication is asynchronous, so a failover may lose the last writes, and a server
// without an append-only file loses everything at a restart. A session that is gone
// is unknown: its owner has to log in. One that went back to an earlier generation
// is revoked when the newer token is presented ([session.Decide], rule 5). For lost
// revocations every instance remembers what it has read of the stream; when its place
// in the stream is gone, it reads all of it again and revokes anew what is missing.
//
// Evicting is losing sessions as well. [Store.Check] says so when a server's
// maxmemory-policy is not noeviction. A full server that does not evict refuses new
// sessions ([session.ErrFull]); those that live go on and can be revoked.
package redis
