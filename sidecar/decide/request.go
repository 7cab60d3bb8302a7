// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"strings"

	"github.com/tokenward/tokenward/internal/token"
)

// Request is what a decision needs of a request's head.
type Request struct {
	Method string
	// Target is the request target as received, in origin form or absolute form
	// (RFC 9112 section 3.2).
	Target string
	// Authorization are the values of all headers of that name.
	Authorization []string
	// Origin and RequestMethod say that there are headers Origin and
	// Access-Control-Request-Method.
	Origin, RequestMethod bool
}

// preflight is what browsers send before some cross-origin requests (Fetch
// standard, section CORS-preflight fetch). It never carries a token.
func (r *Request) preflight() bool {
	return r.Method == "OPTIONS" && r.Origin && r.RequestMethod
}

// splitTarget separates path and query of an origin-form or absolute-form target.
// The query is never interpreted, but must not hold what ends a target.
func splitTarget(target string) (path, query string, hasQuery, ok bool) {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f || c == '#' {
			return "", "", false, false
		}
	}
	if !strings.HasPrefix(target, "/") {
		if target, ok = cutAuthority(target); !ok {
			return "", "", false, false
		}
	}
	path, query, hasQuery = strings.Cut(target, "?")
	return path, query, hasQuery, true
}

// cutAuthority brings "http://host/path" to "/path". User information in the
// authority is refused: who it is meant for is anybody's guess.
func cutAuthority(target string) (string, bool) {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", false
	}
	authority, path := rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if authority == "" || strings.ContainsAny(authority, "@\\") {
		return "", false
	}
	if path[0] == '?' {
		path = "/" + path
	}
	return path, true
}

// checkAuthorization refuses what two readers could take for two credentials
// (threat model row 8): several headers, or several joined by commas.
func checkAuthorization(values []string) error {
	if len(values) == 0 {
		return nil
	}
	if len(values) > 1 {
		return &token.Error{Reason: token.HeadersAmbiguous, Detail: "more than one Authorization header"}
	}
	if !strings.Contains(values[0], ",") {
		return nil
	}
	for part := range strings.SplitSeq(values[0], ",") {
		if scheme, _, _ := strings.Cut(strings.TrimSpace(part), " "); strings.EqualFold(scheme, "bearer") {
			return &token.Error{Reason: token.HeadersAmbiguous, Detail: "more than one credential in Authorization"}
		}
	}
	return nil
}

// BearerToken strips the scheme (RFC 6750 section 2.1, case as in RFC 9110 section
// 11.1). Other schemes are the application's, and no token.
func BearerToken(values []string) (string, error) {
	if err := checkAuthorization(values); err != nil {
		return "", err
	}
	if len(values) == 0 {
		return "", &token.Error{Reason: token.TokenMissing, Detail: "no Authorization header"}
	}
	scheme, raw, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", &token.Error{Reason: token.TokenMissing, Detail: "Authorization is not Bearer"}
	}
	return strings.TrimLeft(raw, " "), nil
}
