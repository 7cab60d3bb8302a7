// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

// Reason says why a request or a token was refused. It is the same word in the
// body, in WWW-Authenticate, in the metric label and in the log line (design
// section 8). The set is closed: a verifier, the issuer and the sidecar use no other.
type Reason string

// The reasons. Those down to ClaimMismatch are found on the token alone.
const (
	TokenMissing        Reason = "token_missing"
	TokenMalformed      Reason = "token_malformed"
	TokenTooLarge       Reason = "token_too_large"
	AlgorithmNotAllowed Reason = "algorithm_not_allowed"
	KeyUnknown          Reason = "key_unknown"
	SignatureInvalid    Reason = "signature_invalid"
	TokenExpired        Reason = "token_expired"
	TokenNotYetValid    Reason = "token_not_yet_valid"
	IssuerNotTrusted    Reason = "issuer_not_trusted"
	AudienceMismatch    Reason = "audience_mismatch"
	ClaimMissing        Reason = "claim_missing"
	ClaimMismatch       Reason = "claim_mismatch"

	SessionRevoked Reason = "session_revoked"
	SessionExpired Reason = "session_expired"
	SessionUnknown Reason = "session_unknown"
	TokenReused    Reason = "token_reused"
	UserDisabled   Reason = "user_disabled"

	RuleDenied       Reason = "rule_denied"
	PathAmbiguous    Reason = "path_ambiguous"
	HeadersAmbiguous Reason = "headers_ambiguous"

	IssuerUnavailable  Reason = "issuer_unavailable"
	StoreFull          Reason = "store_full"
	RateLimited        Reason = "rate_limited"
	CredentialsInvalid Reason = "credentials_invalid"
	// RequestInvalid: the body of a call to one of our endpoints is not what it
	// must be (RFC 6749 section 5.2 calls it invalid_request).
	RequestInvalid Reason = "request_invalid"
)

// Reasons lists every reason, for metrics that must exist before they count.
func Reasons() []Reason {
	return []Reason{
		TokenMissing, TokenMalformed, TokenTooLarge, AlgorithmNotAllowed, KeyUnknown, SignatureInvalid,
		TokenExpired, TokenNotYetValid, IssuerNotTrusted, AudienceMismatch, ClaimMissing, ClaimMismatch,
		SessionRevoked, SessionExpired, SessionUnknown, TokenReused, UserDisabled,
		RuleDenied, PathAmbiguous, HeadersAmbiguous,
		IssuerUnavailable, StoreFull, RateLimited, CredentialsInvalid, RequestInvalid,
	}
}
