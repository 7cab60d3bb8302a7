// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Kind is what is wrong with the database, in one word that suits a condition.
type Kind string

const (
	// Misconfigured says that the URL or the CA is not understood.
	Misconfigured Kind = "Misconfigured"
	// Unreachable says that nobody answers at the address.
	Unreachable Kind = "Unreachable"
	// CredentialsRefused says that the server does not let this user in.
	CredentialsRefused Kind = "CredentialsRefused"
	// TLSNotTrusted says that the server speaks no TLS, or its certificate is not one of the CA
	// for this host.
	TLSNotTrusted Kind = "TLSNotTrusted"
	// DatabaseMissing says that the server has no database of that name.
	DatabaseMissing Kind = "DatabaseMissing"
	// PermissionDenied says that the user may not create the schema, or not use it.
	PermissionDenied Kind = "PermissionDenied"
	// Busy says that no connection is free: all of the pool's are in use, or the server
	// takes no more.
	Busy Kind = "Busy"
	// SchemaDamaged says that somebody has removed a part of the schema, which the issuer
	// does not make again beside what is left.
	SchemaDamaged Kind = "SchemaDamaged"
	// SchemaNewer says that a newer release has changed the schema.
	SchemaNewer Kind = "SchemaNewer"
	// ReadOnly says that the server is a standby, or takes no writes.
	ReadOnly Kind = "ReadOnly"
	// Unavailable stands for anything else that keeps the server from answering.
	Unavailable Kind = "Unavailable"
)

// Error is an outage of the store. It says what is wrong and holds nothing of what the
// driver or the server said, in which there may be the URL and its password.
type Error struct {
	Kind Kind
	// Code is the SQLSTATE (PostgreSQL documentation, appendix A), if there was one.
	Code    string
	message string
}

func (e *Error) Error() string {
	if e.Code != "" {
		return e.message + " (SQLSTATE " + e.Code + ")"
	}
	return e.message
}

func misconfigured(message string) *Error {
	return &Error{Kind: Misconfigured, message: message}
}

// KindOf is what is wrong according to an error of this package: [Unavailable] when it
// does not say, [Unreachable] for a deadline of the caller's own, and nothing for no
// error or a cancelled call.
func KindOf(err error) Kind {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, context.DeadlineExceeded):
		return Unreachable
	}
	if ours, ok := errors.AsType[*Error](err); ok {
		return ours.Kind
	}
	return Unavailable
}

var (
	// errClosed is an outage to the caller: the policy's store was torn down.
	errClosed = &Error{Kind: Unavailable, message: "session store is closed"}
	errBusy   = &Error{Kind: Busy, message: "all connections of the issuer to the PostgreSQL server are in use: it answers too slowly, or there is too much for it to do"}
	// errStandby is of a server that is no primary.
	errStandby = errors.New("the server takes no writes")
)

// SQLSTATEs that mean something to us.
const (
	invalidAuthorization   = "28000"
	invalidPassword        = "28P01"
	invalidCatalog         = "3D000"
	insufficientPrivilege  = "42501"
	readOnlyTransaction    = "25006"
	tooManyConnections     = "53300"
	diskFull               = "53100"
	undefinedColumn        = "42703"
	duplicateTable         = "42P07"
	duplicateColumn        = "42701"
	undefinedTable         = "42P01"
	invalidSchema          = "3F000"
	serializationFailure   = "40001"
	deadlock               = "40P01"
	adminShutdown          = "57P01"
	crashShutdown          = "57P02"
	cannotConnectNow       = "57P03"
	connectionExceptions   = "08"
	insufficientResources  = "53"
	transactionStateErrors = "25"
)

// classify makes an Error of what the driver said.
func classify(err error) error {
	var ours *Error
	var server *pgconn.PgError
	switch {
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &server):
		return fromServer(server.Code)
	case errors.Is(err, errStandby):
		return &Error{Kind: ReadOnly, message: "the PostgreSQL server is a standby or takes no writes; url must lead to the primary"}
	case isTLS(err):
		return &Error{Kind: TLSNotTrusted, message: "the PostgreSQL server speaks no TLS, or its certificate is not trusted for the host in url; put its CA in ca.crt"}
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return &Error{Kind: Unreachable, message: "the PostgreSQL server did not answer in time, or all connections to it are busy"}
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return &Error{Kind: Unreachable, message: "the host name in url of the PostgreSQL server cannot be resolved"}
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return &Error{Kind: Unreachable, message: "the PostgreSQL server cannot be reached at the host and port in url"}
	}
	return &Error{Kind: Unavailable, message: "the connection to the PostgreSQL server was lost"}
}

func fromServer(code string) *Error {
	e := &Error{Code: code}
	switch code {
	case invalidPassword, invalidAuthorization:
		e.Kind, e.message = CredentialsRefused, "the PostgreSQL server refuses the user or the password in url, or a connection from here"
	case invalidCatalog:
		e.Kind, e.message = DatabaseMissing, "the PostgreSQL server has no database of the name in url"
	case insufficientPrivilege:
		e.Kind, e.message = PermissionDenied, "the user in url may not create the schema \"tokenward\", or not use it: run CREATE SCHEMA tokenward AUTHORIZATION that user"
	case readOnlyTransaction:
		e.Kind, e.message = ReadOnly, "the PostgreSQL server takes no writes; url must lead to the primary"
	case tooManyConnections:
		e.Kind, e.message = Busy, "the PostgreSQL server takes no more connections; raise max_connections, or have others use fewer"
	case undefinedTable, undefinedColumn, invalidSchema, duplicateTable, duplicateColumn:
		e.Kind, e.message = SchemaDamaged, "a part of the schema \"tokenward\" was removed; restore it, or DROP SCHEMA tokenward CASCADE, after which everybody has to log in again"
	case diskFull:
		e.Kind, e.message = Unavailable, "the disk of the PostgreSQL server is full"
	default:
		e.Kind, e.message = Unavailable, "the PostgreSQL server cannot answer"
	}
	return e
}

func isTLS(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		alert        tls.AlertError
		authority    x509.UnknownAuthorityError
		host         x509.HostnameError
		invalid      x509.CertificateInvalidError
	)
	return errors.As(err, &verification) || errors.As(err, &record) || errors.As(err, &alert) ||
		errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) ||
		// The driver has no other name for it.
		strings.Contains(err.Error(), "server refused TLS connection")
}

// passing reports whether the same call, made again at once, may well succeed.
func passing(err error) bool {
	var ours *Error
	var server *pgconn.PgError
	switch {
	case errors.As(err, &ours), isTLS(err):
		return false
	case errors.As(err, &server):
		switch server.Code {
		case serializationFailure, deadlock, adminShutdown, crashShutdown, cannotConnectNow, undefinedTable, invalidSchema, readOnlyTransaction:
			return true
		}
		return strings.HasPrefix(server.Code, connectionExceptions) || strings.HasPrefix(server.Code, insufficientResources)
	}
	return true // the connection, or the way to it
}

// newConnectionNeeded reports whether the server's answer says that this connection
// leads to the wrong place: to a primary that has become a standby.
func newConnectionNeeded(err error) bool {
	var server *pgconn.PgError
	return errors.Is(err, errStandby) || errors.As(err, &server) && strings.HasPrefix(server.Code, transactionStateErrors)
}

// schemaGone reports whether the schema that was there is not any more: the database
// was replaced.
func schemaGone(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && (server.Code == undefinedTable || server.Code == invalidSchema)
}
