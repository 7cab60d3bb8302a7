// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package protocol is the contract between the sidecar and the issuer: paths,
// headers and bodies, in one version. See ADR 0002.
//
// Every call carries the pod's projected service account token (audience
// [Audience]) as its bearer token, and goes to a path below [Prefix] that names
// the policy. The user's access token travels in the body, never in a header. A
// refusal is a [Problem] with one of the closed set of reasons.
//
// Programs go by the reason, not by the status: a failed authentication of the user
// has the status that the policy chose. When it is the caller, the pod, that is not
// accepted, the status is 401 or 403 and the reason issuer_unavailable: to the client
// behind the sidecar that is an outage, and no verdict on its token. An issuer that cannot
// work any more where another one may answers 421 with that reason, has done nothing, and
// closes the connection: any call may be made again (RFC 9110 section 15.5.20).
//
// A release talks to the release before and after it: within a version fields are
// only added, and a reader ignores those it does not know.
package protocol

import (
	"net/url"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

const (
	// Audience of the service account token that a sidecar presents.
	Audience = "tokenward"

	// MaxLoginBody is the largest login body in bytes (design section 9).
	MaxLoginBody = 64 << 10

	// ClientAddressHeader carries the address of the client's connection, an IP
	// without a port, from the sidecar to the issuer. Only for limits, never for access.
	ClientAddressHeader = "Tokenward-Client-Address"

	// SentAtHeader carries when a sidecar sent a refresh, or first sent one that it makes
	// again, in milliseconds since 1970 by the clock of the issuers, which it knows from the
	// header Date of their answers; see ADR 0026. A sidecar that has had no answer yet leaves
	// it out. What is long ago is not begun; besides, what is decided by it only ever spares
	// a session.
	SentAtHeader = "Tokenward-Sent-At"

	// ProblemContentType is RFC 9457.
	ProblemContentType = "application/problem+json"
)

// Call is one of the issuer's endpoints.
type Call string

// The endpoints.
const (
	// CallLogin: POST the client's own body with its own Content-Type; 200 [TokenResponse].
	CallLogin Call = "token"
	// CallRefresh: POST [RefreshRequest]; 200 [TokenResponse].
	CallRefresh Call = "refresh"
	// CallLogout: POST [LogoutRequest]; 204.
	CallLogout Call = "logout"
	// CallKeys: GET; 200 a key set document of internal/token, with its version.
	CallKeys Call = "keys"
	// CallRevocations: GET with the query parameter "since" set to the last cursor
	// seen, or without it for everything still relevant; 200 and an endless stream
	// of [RevocationEvent], one JSON object a line.
	CallRevocations Call = "revocations"
)

// Path is the path of a call for one policy, for example /v1/policies/shop/shop/refresh.
func Path(namespace, policy string, call Call) string {
	return "/v1/policies/" + url.PathEscape(namespace) + "/" + url.PathEscape(policy) + "/" + string(call)
}

// PathPattern is the same as a pattern of [net/http.ServeMux] with the wildcards
// {namespace} and {policy}.
func PathPattern(call Call) string { return "/v1/policies/{namespace}/{policy}/" + string(call) }

// TokenResponse is RFC 6749 section 5.1 without the refresh token, which never
// leaves the server.
type TokenResponse struct {
	AccessToken string `json:"access_token"`
	// TokenType is always "Bearer".
	TokenType string `json:"token_type"`
	// ExpiresIn is in seconds from now.
	ExpiresIn int64 `json:"expires_in"`
}

// RefreshRequest asks for the successor of a token. Whether the token may already
// have expired is the policy's decision (refresh.onExpired), not the sidecar's.
type RefreshRequest struct {
	AccessToken string `json:"access_token"`
}

// LogoutRequest ends the session of a token, expired or not.
type LogoutRequest struct {
	AccessToken string `json:"access_token"`
}

// RevocationEvent is one line of the revocation stream. A line with a SessionID
// revokes it. A line without one is a heartbeat, sent at least every
// [HeartbeatInterval]; the first heartbeat says that everything still relevant was sent.
type RevocationEvent struct {
	// Cursor is what to present in "since" to go on after this line.
	Cursor    string `json:"cursor,omitempty"`
	SessionID string `json:"sid,omitempty"`
	// ForgetAfter is when the last token of the session is dead, and the entry of no more use.
	ForgetAfter time.Time `json:"forgetAfter,omitzero"`
}

// HeartbeatInterval is the longest silence on the revocation stream.
const HeartbeatInterval = 5 * time.Second

// Problem is an RFC 9457 answer. Title and Detail never hold a value that the caller
// sent; the name of a field that a login must not have may be in Detail.
type Problem struct {
	// Type is "urn:tokenward:reason:" and the reason.
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Reason is the extension member that programs go by.
	Reason token.Reason `json:"reason"`
}

// NewProblem fills in type and title.
func NewProblem(status int, reason token.Reason, detail string) Problem {
	return Problem{Type: "urn:tokenward:reason:" + string(reason), Title: reason.Title(), Status: status, Detail: detail, Reason: reason}
}
