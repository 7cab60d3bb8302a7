// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"encoding/json"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// Denial is the answer to a refused request, the same in every front end.
type Denial struct {
	// Status is the HTTP status.
	Status int
	// Body is an RFC 9457 problem.
	Body []byte
	// Challenge is the value of WWW-Authenticate (RFC 6750 section 3), empty when a
	// token would not help.
	Challenge string
	// RetryAfter is in seconds, 0 for none.
	RetryAfter int
	// GRPCStatus is the status code for a gRPC client.
	GRPCStatus int
}

// retryAfter is what a client is asked to wait, in seconds, when the issuer did not say.
const retryAfter = 1

// Denial is the answer for a reason. A reason outside the closed set is a bug, and
// answered like the issuer's absence: it is no reason to log anybody out.
func (p *Policy) Denial(reason token.Reason) Denial {
	if d, ok := p.denials[reason]; ok {
		return d
	}
	return p.denials[token.IssuerUnavailable]
}

func compileDenials(s *settings.Settings) map[token.Reason]Denial {
	realm := s.Policy.Namespace + "/" + s.Policy.Name
	denials := make(map[token.Reason]Denial, len(token.Reasons()))
	for _, reason := range token.Reasons() {
		d := shape(reason, s.Denial.StatusCode)
		d.Body = problemBody(protocol.NewProblem(d.Status, reason, ""))
		d.Challenge = challenge(realm, reason)
		denials[reason] = d
	}
	return denials
}

// DetailedDenial is Denial with a sentence of the issuer's in it.
func (p *Policy) DetailedDenial(reason token.Reason, detail string) Denial {
	d := p.Denial(reason)
	if detail != "" {
		d.Body = problemBody(protocol.NewProblem(d.Status, reason, detail))
	}
	return d
}

func problemBody(p protocol.Problem) []byte {
	body, err := json.Marshal(p)
	if err != nil {
		// A struct of strings and a number always marshals.
		panic(err)
	}
	return append(body, '\n')
}

// The codes of gRPC that are used here (grpc/grpc doc/statuscodes.md).
const (
	grpcInvalidArgument   = 3
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// shape is the status of a reason; failed is that of every failed authentication.
func shape(reason token.Reason, failed int) Denial {
	switch reason {
	case token.HeadersAmbiguous, token.PathAmbiguous, token.RequestInvalid:
		return Denial{Status: 400, GRPCStatus: grpcInvalidArgument}
	case token.RuleDenied, token.ClaimMismatch:
		return Denial{Status: 403, GRPCStatus: grpcPermissionDenied}
	case token.RateLimited:
		return Denial{Status: 429, RetryAfter: retryAfter, GRPCStatus: grpcResourceExhausted}
	case token.IssuerUnavailable, token.StoreFull:
		return Denial{Status: 503, RetryAfter: retryAfter, GRPCStatus: grpcUnavailable}
	case token.TokenMissing, token.TokenMalformed, token.TokenTooLarge, token.AlgorithmNotAllowed, token.KeyUnknown,
		token.SignatureInvalid, token.TokenExpired, token.TokenNotYetValid, token.IssuerNotTrusted, token.AudienceMismatch,
		token.ClaimMissing, token.SessionRevoked, token.SessionExpired, token.SessionUnknown, token.TokenReused,
		token.UserDisabled, token.CredentialsInvalid:
		return Denial{Status: failed, GRPCStatus: grpcUnauthenticated}
	}
	return Denial{Status: 503, RetryAfter: retryAfter, GRPCStatus: grpcUnavailable}
}

// challenge is WWW-Authenticate. Without a token there is no error to tell (RFC 6750
// section 3.1); the parameter "reason" is ours.
func challenge(realm string, reason token.Reason) string {
	code := "invalid_token"
	switch reason {
	case token.IssuerUnavailable, token.StoreFull, token.RateLimited:
		return ""
	case token.TokenMissing, token.CredentialsInvalid:
		code = ""
	case token.HeadersAmbiguous, token.PathAmbiguous, token.RequestInvalid:
		code = "invalid_request"
	case token.RuleDenied, token.ClaimMismatch:
		code = "insufficient_scope"
	default:
	}
	c := `Bearer realm="` + realm + `"`
	if code != "" {
		c += `, error="` + code + `", error_description="` + reason.Title() + `"`
	}
	return c + `, reason="` + string(reason) + `"`
}
