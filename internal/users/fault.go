// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package users

// Fault is why a source cannot answer. It is a closed set, fit for a metric's label.
type Fault string

// Faults. [Fault.Misconfigured] tells which of them stay until somebody mends the
// configuration.
const (
	// FaultAddress is a host that does not resolve, an address where nothing answers,
	// or one that may not be reached.
	FaultAddress Fault = "Address"
	// FaultTLS is a server without TLS, or whose certificate is not trusted.
	FaultTLS Fault = "TLS"
	// FaultCredentials is a source that does not let the issuer in.
	FaultCredentials Fault = "Credentials"
	// FaultSchema is a database, table, column or permission that is missing, or a
	// query that the database does not understand.
	FaultSchema Fault = "Schema"
	// FaultAnswer is an answer that is not what was agreed: two rows for one user, no
	// subject, HTML instead of JSON.
	FaultAnswer Fault = "Answer"
	// FaultTimeout is an answer that took too long.
	FaultTimeout Fault = "Timeout"
	// FaultUnavailable is anything else: restarts, too many connections, a server's own
	// failures.
	FaultUnavailable Fault = "Unavailable"
)

// Misconfigured says whether the fault is likely to stay until somebody changes the
// configuration of the policy, the source or the network between them.
func (f Fault) Misconfigured() bool {
	switch f {
	case FaultAddress, FaultTLS, FaultCredentials, FaultSchema, FaultAnswer:
		return true
	case FaultTimeout, FaultUnavailable:
	}
	return false
}

// UnavailableError says that a source cannot answer for now, and what is to be
// mended. It wraps nothing and quotes neither credentials nor anything that a user
// presented, because drivers put both into their messages: it may be logged and shown
// in a condition.
type UnavailableError struct {
	Fault Fault
	// Detail is a sentence for the owner of the policy.
	Detail string
}

// Error is the detail.
func (e *UnavailableError) Error() string { return e.Detail }
