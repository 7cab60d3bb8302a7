// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"strings"
)

// allowOrigin lets a browser's script read an answer of ours. There is nothing in it
// that the script's user may not know, and nothing that a cookie would have unlocked:
// tokens come in a header that scripts set on purpose. Denials may be read in
// requests with credentials, too, because applications send such.
func (x *exchange) allowOrigin(header http.Header, credentials bool) {
	header.Add("Vary", "Origin")
	origin := x.request.Header["Origin"]
	if len(origin) != 1 || !isOrigin(origin[0]) {
		return
	}
	header.Set("Access-Control-Allow-Origin", origin[0])
	if credentials {
		header.Set("Access-Control-Allow-Credentials", "true")
	}
	header.Add("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After")
}

// isOrigin is a serialized origin, or the word null (RFC 6454 section 6.1).
func isOrigin(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ',' {
			return false
		}
	}
	return s == "null" || len(s) <= 512 && strings.Contains(s, "://")
}

// answerPreflight answers for our own endpoints, of which the application knows nothing.
func (x *exchange) answerPreflight() {
	header := x.w.Header()
	x.allowOrigin(header, false)
	methods := "GET, POST"
	if e, ok := endpoints[x.verdict.Endpoint]; ok {
		methods = e.allow
	}
	header.Set("Access-Control-Allow-Methods", methods)
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	header.Set("Access-Control-Max-Age", "600")
	x.countEndpoint()
	x.w.WriteHeader(http.StatusNoContent)
}

// returnToken puts the new token into an answer and keeps caches from storing it
// (RFC 9111 section 5.2.2.5).
func (x *exchange) returnToken(header http.Header) {
	for name := range header {
		if x.policy != nil && x.policy.CarriesToken(name) {
			delete(header, name)
		}
	}
	if x.newToken == "" {
		return
	}
	for name := range header {
		if overridesCacheControl(name) {
			delete(header, name)
		}
	}
	name := x.policy.Settings.Refresh.ResponseHeader
	header.Set(name, "Bearer "+x.newToken)
	header.Set("Cache-Control", "no-store")
	if !hasToken(header["Vary"], "Authorization") {
		header.Add("Vary", "Authorization")
	}
	if len(x.request.Header["Origin"]) > 0 {
		header.Add("Access-Control-Expose-Headers", name)
	}
}

// overridesCacheControl: caches that know these headers go by them and not by
// Cache-Control (RFC 9213, and older habits of nginx and content networks).
func overridesCacheControl(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasSuffix(lower, "-cache-control") || lower == "surrogate-control" || lower == "x-accel-expires" || lower == "expires"
}
