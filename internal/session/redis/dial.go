// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// handshakeError is a connection that came to be, and TLS on it that did not.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

type dial = func(ctx context.Context, network, address string) (net.Conn, error)

// dialer connects within half the time that an operation has, so that the operation
// ends with the reason and not with its deadline. The client's own dialer cannot tell
// a server that is away from one that has no TLS and waits for more.
func dialer(plain dial, config *tls.Config, timeout time.Duration) dial {
	lost := &losses{}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		reaching, stop := context.WithTimeout(ctx, timeout/2)
		defer stop()
		connection, err := plain(reaching, network, address)
		if err != nil {
			return nil, err
		}
		if config == nil {
			return newCapped(connection), nil
		}
		mine := config.Clone()
		if mine.ServerName == "" {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				_ = connection.Close()
				return nil, fmt.Errorf("dial %q: %w", address, err)
			}
			mine.ServerName = host
		}
		ctx, cancel := context.WithTimeout(ctx, timeout/2)
		defer cancel()
		secure := tls.Client(connection, mine)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = connection.Close()
			return nil, &handshakeError{err: err}
		}
		return newCapped(newSecured(secure, lost.at(address))), nil
	}
}
