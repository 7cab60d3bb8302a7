// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package framing lets only well-formed HTTP/1.1 framing through to a server
// (RFC 9112), so that no two readers of a connection can disagree on where a
// request ends.
//
// net/http repairs what it reads: it joins folded lines, and it drops a
// Content-Length that stands beside a Transfer-Encoding, before a handler could
// see either. Hence a [Conn] looks at the bytes first. It holds a head back until
// it is complete and checked, follows bodies and chunks to their end, and replaces
// a head that it refuses by a harmless one, at which the handler finds the error
// through [Conn.NextHead] and answers. Nothing after a refused head is ever read.
//
// The package owns the framing of HTTP/1.x and nothing else: it passes HTTP/2
// (prior knowledge) and what follows an Upgrade untouched, knows no HTTP library,
// and does not decide what an allowed header means.
package framing
