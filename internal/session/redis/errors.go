// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// Problem is what keeps the store from working, from a closed set.
type Problem string

// The problems.
const (
	// ProblemUnreachable: nobody answers, or not in time.
	ProblemUnreachable Problem = "Unreachable"
	// ProblemUnresolved: a host of the addresses has no address.
	ProblemUnresolved Problem = "Unresolved"
	// ProblemCredentials: user or password are wrong, or missing.
	ProblemCredentials Problem = "CredentialsRefused"
	// ProblemTLS: the server's certificate is not trusted, or one side has TLS and the
	// other has not.
	ProblemTLS Problem = "TLSFailed"
	// ProblemRights: the user may not do what the store needs.
	ProblemRights Problem = "NotAllowed"
	// ProblemMode: the servers do not belong together as the mode says.
	ProblemMode Problem = "WrongMode"
	// ProblemReadOnly: the server is a replica, or has too few of them to write.
	ProblemReadOnly Problem = "ReadOnly"
	// ProblemEviction: the server may drop sessions when its memory is full.
	ProblemEviction Problem = "Evicts"
	// ProblemBusy: the server answers, but no connection to it is free, or it takes no more.
	ProblemBusy Problem = "Busy"
	// ProblemFull: the server's memory is full, and it refuses to take more.
	ProblemFull Problem = "MemoryFull"
	// ProblemNewerRecord: a later release has written that session.
	ProblemNewerRecord Problem = "NewerRecord"
	// ProblemOther is anything else that the server says.
	ProblemOther Problem = "Failed"
)

// ProblemOf is what is wrong according to an error of this package: [ProblemOther] when
// it does not say, [ProblemUnreachable] for a deadline of the caller's own, and nothing
// for no error or a cancelled call.
func ProblemOf(err error) Problem {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, context.DeadlineExceeded):
		return ProblemUnreachable
	}
	if ours, ok := errors.AsType[*Error](err); ok {
		return ours.Problem
	}
	return ProblemOther
}

// Error is why Redis could not do it. Its text tells what to do, and never holds a
// password, whatever the server or a proxy before it echoes. There is nothing to
// unwrap for the same reason.
type Error struct {
	Problem Problem
	text    string
	// detail is what the server or the network said.
	detail string
}

// Error is the text, with what the server or the network said: it may differ from one
// try to the next.
func (e *Error) Error() string {
	if e.detail != "" {
		return "redis: " + e.text + ": " + e.detail
	}
	return "redis: " + e.text
}

// Advice is the text in words of ours alone.
func (e *Error) Advice() string { return "redis: " + e.text }

var (
	errNewer  = &Error{Problem: ProblemNewerRecord, text: "the session was written by a newer release, which this one does not understand: finish the upgrade"}
	errClosed = &Error{Problem: ProblemUnreachable, text: "the store is closed"}
)

// explain turns an error of the client into one for people.
func (s *Store) explain(err error) *Error {
	if already, ok := errors.AsType[*Error](err); ok {
		return already
	}
	problem, advice := classify(err, s.options.Mode)
	detail := err.Error()
	for _, secret := range []Password{s.options.Credentials.Password, s.options.SentinelCredentials.Password} {
		if secret.value != "" && strings.Contains(detail, secret.value) {
			// Not only the password: what is around it was meant to be as secret.
			detail = "(an answer that repeated the password, withheld)"
		}
	}
	return &Error{Problem: problem, text: advice, detail: strings.TrimPrefix(detail, "redis: ")}
}

func classify(err error, mode Mode) (Problem, string) {
	var verification *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var handshake *handshakeError
	switch {
	case errors.As(err, &verification):
		return ProblemTLS, "the server's certificate is not trusted (is it signed by the given CA, for this host name?)"
	case errors.As(err, &record):
		return ProblemTLS, "the server does not speak TLS at this port"
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		return ProblemTLS, "the server refuses our side of TLS (does it ask for a client certificate?)"
	case errors.As(err, &handshake):
		return ProblemTLS, "the server takes connections, but does not speak TLS at this port"
	}
	// Errors of the server come as text.
	text := err.Error()
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
	}
	switch {
	case has("WRONGPASS", "NOAUTH", "invalid password", "without any password configured", "Client sent AUTH"):
		return ProblemCredentials, "user or password is refused"
	case has("NOPERM", "ACL failure", "has no permissions", "executing the script can't run this command", "can't access"):
		return ProblemRights, "the user lacks a right (the documentation has the ACL rules)"
	case has("cluster support disabled"):
		return ProblemMode, "the server is no Redis Cluster: set mode " + string(ModeSingle)
	case has("MOVED ", "ASK ", "CROSSSLOT"):
		return ProblemMode, "the server is a node of a Redis Cluster: set mode " + string(ModeCluster)
	case mode == ModeSentinel && has("unknown command", "redis: nil"):
		return ProblemMode, "the addresses are no Sentinels, or none that watch a group of this name"
	case has("READONLY", "NOREPLICAS"):
		return ProblemReadOnly, "the server takes no writes"
	case has("MISCONF"):
		return ProblemReadOnly, "the server takes no writes because it cannot save them"
	case has("max number of clients"):
		return ProblemBusy, "the server takes no more connections; raise maxclients, or have others use fewer"
	case outOfMemory(err):
		return ProblemFull, "the server's memory is full; raise maxmemory"
	case errors.Is(err, goredis.ErrPoolTimeout), errors.Is(err, goredis.ErrPoolExhausted):
		return ProblemBusy, "all connections of the issuer are in use: the server answers too slowly, or there is too much for it to do"
	}
	var network net.Error
	var name *net.DNSError
	switch {
	case errors.As(err, &name):
		return ProblemUnresolved, "the name of a host does not resolve"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), has("connection reset", "broken pipe"), has("invalid reply: \"\\x15"):
		return ProblemUnreachable, "the server closed the connection (does it want TLS? has it reached its maxclients?)"
	case errors.As(err, &network),
		has("LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "i/o timeout", "are unreachable", "deadline exceeded"):
		return ProblemUnreachable, "no server answers"
	}
	return ProblemOther, "the server failed"
}

// outOfMemory reports whether the server refused a write that may need memory.
func outOfMemory(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "OOM ") }
