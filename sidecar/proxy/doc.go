// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package proxy is the front end on net/http: it reads requests, has package decide
// judge them, answers refusals, serves the endpoints below the policy's prefix, and
// forwards the rest to the application with [net/http/httputil.ReverseProxy].
//
// It owns everything that is HTTP. It takes no decision of its own on who may call.
//
// # What reaches the application
//
//   - The canonical path and the query as received.
//   - Every header of the client's but: hop-by-hop headers and those that Connection
//     names, headers whose name folds to an identity header, and Authorization under
//     upstream.authorization: Remove. Request trailers are not forwarded.
//   - The client's address at the end of X-Forwarded-For. What came in that header,
//     X-Forwarded-Host, -Proto and Forwarded is kept, because the sidecar stands in
//     the place of the application behind the same ingress; it is as trustworthy as it
//     was without us. The sidecar itself never decides on it.
//
// # Audit
//
// Under enforcement: Audit a request that would be denied is counted, logged and
// forwarded, without identity headers, whichever name a client tries. Two kinds are
// refused even so: framing and headers that are ambiguous, because what would be
// forwarded is not one request, and targets that are no path. Tokens are refreshed as
// under Enforce. The endpoints are not affected.
//
// # Streams
//
// WebSockets, server-sent events, gRPC streams and every other exchange of unknown
// length end when their session is revoked. A token that expires in the middle ends
// them under onExpired: Reject, after the leeway. Under Refresh it does not: a stream
// has no response header left to return a new token in, and the session behind it is
// alive until it is revoked. Ordinary requests in flight are finished.
package proxy
