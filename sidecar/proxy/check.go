// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"strings"

	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/framing"
)

// checkFraming asks the connection what it thought of the head. HTTP/2 has framing
// of its own, which net/http checks.
func (x *exchange) checkFraming() *framing.Error {
	if x.request.ProtoMajor != 1 || x.conn == nil {
		return nil
	}
	return x.conn.NextHead()
}

// checkHeaders says what is ambiguous about the headers, nothing when all is well.
func (x *exchange) checkHeaders() string {
	r := x.request
	for name := range r.Header {
		if decide.AmbiguousName(name) {
			return "a header name is malformed or can be taken for another header"
		}
	}
	if r.Method == http.MethodConnect {
		return "CONNECT is for proxies"
	}
	return x.checkUpgrade()
}

// checkUpgrade lets WebSockets through (RFC 6455 section 4.1) and no other protocol:
// what follows an upgrade is out of our sight.
func (x *exchange) checkUpgrade() string {
	protocols := x.request.Header["Upgrade"]
	if len(protocols) == 0 {
		return ""
	}
	if len(protocols) == 1 && strings.EqualFold(strings.TrimSpace(protocols[0]), "h2c") {
		// An offer that a server may pass over (RFC 9110 section 7.8). Java's HttpClient
		// makes it with each request to an http URI. The application never sees it.
		delete(x.request.Header, "Upgrade")
		delete(x.request.Header, "Http2-Settings")
		return ""
	}
	x.upgrade = true
	r := x.request
	switch {
	case len(protocols) > 1 || !strings.EqualFold(strings.TrimSpace(protocols[0]), "websocket"):
		return "Upgrade is not websocket"
	case r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1:
		return "Upgrade is not in a GET of HTTP/1.1"
	case !hasToken(r.Header["Connection"], "upgrade"):
		return "Upgrade is not named in Connection"
	}
	return ""
}

// hasToken looks for a member of a comma-separated header (RFC 9110 section 5.6.1).
func hasToken(values []string, want string) bool {
	for _, value := range values {
		for member := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(member), want) {
				return true
			}
		}
	}
	return false
}
