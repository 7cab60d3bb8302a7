// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package orders carries out what an administrator orders by an annotation on a
// TokenPolicy: revoke-subject ends the sessions of one subject, revoke-all those that
// began until a moment. It owns status.revocations of the policy and the Events about
// it. How sessions end is the business of their store ([session.Revoker]), and how
// sidecars hear of it that of the revocation stream.
//
// It runs on every replica of the issuer, without a leader:
//
//	annotation ──► claimed: InProgress ──► sweep ──► sweep again ──► Completed
//	      │          one replica writes     at once    after [settle]
//	      └──────► Refused: the value is not understood, no store is asked
//
// An order is claimed by a write that names the resourceVersion it was decided on, so
// one replica wins it. Another takes over when the order is not completed after
// [takeOver]; sweeps are idempotent, so two that do it at once do no harm.
//
// A login that was under way when the order came may create its session after the
// sweep; the second sweep is for those. It finds what began until the order, so who
// logs in again after it is not touched. Times are the issuers' clocks: what a login
// at an issuer whose clock is ahead has begun is younger than it seems.
//
// What was claimed is done whatever the annotation says next: removed, or changed to
// another value, it is cleared or claimed anew after the first sweep, and the second
// one is made from memory, at each replica that has seen the order. That is enough,
// because the login that it is for ends with the replica that has it under way.
//
// A record that cannot be read, sealed with a key that is lost, may be of anybody: its
// order stays InProgress, names it, and is tried again until it is readable or gone. It
// does not hold up the next order, and is given up when its annotation has gone on.
//
// The same value again is no new order, unless the annotation was seen with another
// one, or without one, in between. The watch shows every change, so a removal is seen
// even when no reconciliation came in between; only while no issuer runs, or while it
// has lost its watch, can one be missed.
package orders
