// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package certificates makes the operator's own certificate authority and the
// serving certificates of the webhook and the issuer, so that no cert-manager is
// needed.
//
// It owns three Secrets in the operator's namespace and the caBundle of the
// MutatingWebhookConfiguration. What the Secrets are to hold is worked out by pure
// functions over what they hold and the time; the reconciler only reads and writes.
// Serving with the certificates is left to internal/servingcert.
//
// # The authority's life
//
//	          120 days before its end         24 hours later
//	current ─────────────────────────► next ────────────────► current, and the old one
//	signs     a next one is made and   waits  signs from now on  stays in the bundle
//	          is in the bundle                                   until it expires
//
// So whoever follows the bundle within a day verifies every certificate at any
// time. A serving certificate lives 90 days and is renewed when a third of that is left,
// when the authority has changed and when it lacks a name.
//
// Every write carries the resource version that was read, so of two writers one
// wins and the other starts over from what the winner wrote. Deleting the authority's
// Secret makes a new one that nothing trusts yet: that is for emergencies.
package certificates
