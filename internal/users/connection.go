// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"github.com/tokenward/tokenward/internal/outbound"
)

// ConnectionFault says what is wrong when a source cannot be connected to, in words
// of our own: those of the libraries name hosts and addresses. It is false for an
// error of another kind.
func ConnectionFault(err error) (*UnavailableError, bool) {
	fault, detail := connectionFault(err)
	return &UnavailableError{Fault: fault, Detail: detail}, fault != ""
}

func connectionFault(err error) (Fault, string) {
	var refused *outbound.RefusedError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var dns *net.DNSError
	var op *net.OpError
	var network net.Error
	switch {
	case errors.As(err, &refused):
		return FaultAddress, refused.Error()
	case errors.As(err, &certificate):
		return FaultTLS, "the server's certificate is not trusted: " + certificateProblem(err)
	case errors.As(err, &record), errors.As(err, &alert):
		return FaultTLS, "the server and the issuer do not agree on TLS, or the port is one without TLS"
	case errors.As(err, &dns) && dns.IsNotFound:
		return FaultAddress, "the host does not resolve"
	case errors.As(err, &dns):
		return FaultUnavailable, "the host cannot be resolved for now"
	case errors.As(err, &op) && op.Op == "dial":
		return FaultAddress, "nothing answers at the address"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return FaultTimeout, "the server does not answer in time"
	}
	return "", ""
}

func certificateProblem(err error) string {
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &host):
		return "it is not for the host that was asked for"
	case errors.As(err, &authority):
		return "it was not issued by the given CA, or, without one, by any that the system trusts"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired, or is not valid yet"
	}
	return "it is not valid"
}
