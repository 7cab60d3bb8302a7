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
	TokenNotYetValid    Reason = "token_not_yet_valid" //nolint:gosec // a word, not a credential
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

// Title is the reason in a short sentence for people. It is the "title" of an
// RFC 9457 problem and never holds anything that the caller sent.
func (r Reason) Title() string {
	switch r {
	case TokenMissing:
		return "The request carries no access token."
	case TokenMalformed:
		return "The access token is not well formed."
	case TokenTooLarge:
		return "The access token is too large."
	case AlgorithmNotAllowed:
		return "The access token is signed with an algorithm that is not allowed."
	case KeyUnknown:
		return "The access token is signed with a key that is not known."
	case SignatureInvalid:
		return "The signature of the access token is wrong."
	case TokenExpired:
		return "The access token has expired."
	case TokenNotYetValid:
		return "The access token is not valid yet."
	case IssuerNotTrusted:
		return "The access token comes from an issuer that is not trusted here."
	case AudienceMismatch:
		return "The access token is meant for another audience."
	case ClaimMissing:
		return "The access token lacks a claim that is needed."
	case ClaimMismatch:
		return "A claim of the access token does not have a value that is needed."
	case SessionRevoked:
		return "The session was ended."
	case SessionExpired:
		return "The session has expired."
	case SessionUnknown:
		return "The session is not known."
	case TokenReused:
		return "The access token was already exchanged for a newer one."
	case UserDisabled:
		return "The user may no longer sign in."
	case RuleDenied:
		return "The policy denies this request."
	case PathAmbiguous:
		return "The path of the request can be read in more than one way."
	case HeadersAmbiguous:
		return "The headers of the request can be read in more than one way."
	case IssuerUnavailable:
		return "The token service cannot answer for now."
	case StoreFull:
		return "No more sessions can be stored."
	case RateLimited:
		return "There were too many attempts."
	case CredentialsInvalid:
		return "The credentials are wrong."
	case RequestInvalid:
		return "The request is not what this endpoint takes."
	default:
		return "The request was refused."
	}
}
