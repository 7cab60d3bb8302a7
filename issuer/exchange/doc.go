// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package exchange owns what the token service does: a login becomes a session and a
// token, a token becomes its successor, a logout ends the session (design section 4).
//
// It knows policies as immutable snapshots, users and sessions as interfaces, and
// neither HTTP nor Kubernetes. Which refresh is allowed is decided by the pure
// function in internal/session; this package loads, asks, swaps and mints around it:
//
//	verify ─▶ load ─▶ decide ─┬─ deny ────────────────────────▶ refusal
//	           ▲              ├─ revoke ─▶ swap ──────────────▶ refusal
//	           │              ├─ replay ─▶ mint ──────────────▶ current token
//	           │              └─ rotate ─▶ ask user ─▶ mint ─▶ swap ─▶ new token
//	           └────────────── the swap was lost: read again ────┘
//
// No answer leaves before its swap has committed.
package exchange
