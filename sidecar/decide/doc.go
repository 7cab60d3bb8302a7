// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package decide says what happens to a request (design section 8), and knows no
// HTTP library: a front end reads a request's head into a [Request], asks
// [Policy.Decide], and acts. Two front ends that share this package cannot
// disagree on who gets in.
//
// The order is fixed and the first failure ends it: more than one Authorization,
// the path's canonical form, our own endpoints, the rules, the token, its session,
// the claims a rule asks for. A [Policy] is settings compiled once: immutable, safe
// for concurrent use, and the home of the tokens it has verified (see memory), which
// therefore die with it when settings or keys change.
//
// What the package leaves to its callers: framing, connections, asking the issuer,
// counting and logging. It makes no decision on an address or on any header but
// Authorization, Origin and Access-Control-Request-Method.
//
// # Choices that are not in the design
//
//   - A true preflight passes without a token, but not against a rule with access
//     Denied. Below the endpoints' prefix the sidecar answers it.
//   - On paths with access Anonymous nothing is checked, and the application sees
//     Authorization as it was sent: it must not trust it there.
//   - An access rule's requireClaims and a claim that cannot be a header value are
//     answered with claim_mismatch and 403, whatever denial.statusCode says: a new
//     login would not help.
//   - With onExpired: Reject nothing is refreshed early either.
package decide
