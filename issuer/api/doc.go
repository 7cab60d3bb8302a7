// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package api is the issuer on the wire: the endpoints of internal/protocol, what a
// body must look like, and the one place where an error becomes an answer.
//
// Each call passes the same gates in the same order: method, caller (TokenReview),
// namespace, policy, body. What it then does is up to package exchange.
package api
