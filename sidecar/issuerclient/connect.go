// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// connectTimeout bounds all attempts at a connection together, with their handshakes.
	connectTimeout = 3 * time.Second
	// firstPatience is how long the first attempt is waited for before another one is made
	// beside it. Each wait is twice as long as the one before it.
	firstPatience = 300 * time.Millisecond
)

var errNobody = fmt.Errorf("nobody has answered for %s", connectTimeout)

// connectError is a call that was not sent, because there was no connection.
type connectError struct{ cause error }

// Error says what kept it from coming about.
func (e *connectError) Error() string { return fmt.Sprintf("connect: %v", e.cause) }

// Unwrap is for [errors.AsType].
func (e *connectError) Unwrap() error { return e.cause }

// connector connects to a Service. An issuer behind it may have gone without a word, as
// with its node, and be led to for a minute yet: a connection there never comes about,
// while the next one may lead elsewhere. So that is not waited for; see ADR 0025.
type connector struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	tls  *tls.Config
	// racing is held by the one call to connect that may make further attempts: what it
	// gets serves the others, too.
	racing sync.Mutex
}

type attempted struct {
	conn *tls.Conn
	err  error
}

// connect fits DialTLSContext of [net/http.Transport]. The first connection that is ready is
// taken, the others end.
func (c *connector) connect(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errNobody)
	defer cancel()
	results := make(chan attempted)
	pending := 0
	attempt := func() {
		pending++
		go func() {
			conn, err := c.attempt(ctx, network, address)
			select {
			case results <- attempted{conn, err}:
			case <-ctx.Done():
				if err == nil {
					_ = conn.Close()
				}
			}
		}()
	}
	attempt()
	patience, racing := firstPatience, false
	defer func() {
		if racing {
			c.racing.Unlock()
		}
	}()
	more := time.NewTimer(patience)
	defer more.Stop()
	for {
		select {
		case result := <-results:
			pending--
			if result.err == nil {
				return result.conn, nil
			}
			if pending == 0 {
				return nil, &connectError{result.err}
			}
		case <-more.C:
			if racing = racing || c.racing.TryLock(); racing {
				attempt()
				patience *= 2
			}
			more.Reset(patience)
		case <-ctx.Done():
			return nil, &connectError{context.Cause(ctx)}
		}
	}
}

func (c *connector) attempt(ctx context.Context, network, address string) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	raw, err := c.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := c.tls.Clone()
	config.ServerName = host
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}
