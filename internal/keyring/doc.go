// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package keyring is the life of the keys of one SigningKey (design section 5): the
// document that holds them and the function that moves them on.
//
//	             publishBefore has passed,      the last token it signed is
//	             or nothing else can sign       certainly dead (Retention)
//	┌───────────┐             ┌────────┐ next ┌─────────┐
//	│ Published ├────────────▶│ Active ├─────▶│ Retired ├─────▶ removed
//	└─────┬─────┘             └───┬────┘ key  └────┬────┘         ▲
//	      │                       │  takes over    │              │
//	      └───────────────────────┴────────────────┴──────────────┘
//	        revoked: at once, from every state. A Published key that
//	        is no longer wanted leaves too; it has signed nothing.
//
//	           public half known   private half kept   signs
//	Published  yes                 yes                 no
//	Active     yes                 yes                 yes
//	Retired    yes                 no                  no
//
// A key only moves forward, and an id that was removed never comes back. After
// [Advance] exactly one key is Active and at most one is Published, unless it says with
// an error why there is no key to sign with. The first key of a ring, and every key that must
// replace a revoked or lost one, signs at once; every other is Published first, so that all
// verifiers know it before they meet it.
//
// Advance is pure apart from Plan.Generate: it reads no clock and no API. Reading and
// writing the document, and saying what happened, is left to the controller; what a key is,
// to package token. The document with private halves is the truth; the public record, the
// same document without them, lets a ring go on after the other was lost.
package keyring
