// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/tokenward/tokenward/issuer/api"
	"github.com/tokenward/tokenward/issuer/caller"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/policies"
)

// Limits of the server. There is no write timeout, because of the revocation
// streams: package api sets a deadline for each answer and each line of a stream.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	maxStreams        = 256 // on one HTTP/2 connection

	// shutdownTimeout is for what is in flight; the manager waits 30 s for all its parts.
	shutdownTimeout = 25 * time.Second
)

// server is the part of the issuer that sidecars talk to: a runnable of the manager.
type server struct {
	options  Options
	tls      func(*tls.Config)
	callers  *caller.Authenticator
	policies *policies.Controller
	exchange *exchange.Service
	metrics  *issuerMetrics
}

// NeedLeaderElection is false: every replica serves.
func (*server) NeedLeaderElection() bool { return false }

// Start serves until ctx ends, then finishes what is in flight. Until there is a
// certificate no connection comes about, and readiness says why.
func (s *server) Start(ctx context.Context) error {
	listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	closing := make(chan struct{})
	web := s.newServer(ctx, closing)
	failed := make(chan error, 1)
	go func() { failed <- web.ServeTLS(listener, "", "") }()
	s.options.Log.Info("serving", "address", listener.Addr().String())
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	close(closing)
	return errors.Join(err, s.finish(ctx, web))
}

func (s *server) listen(ctx context.Context) (net.Listener, error) {
	if s.options.Listener != nil {
		return s.options.Listener, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.options.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for sidecars: %w", err)
	}
	return listener, nil
}

func (s *server) newServer(ctx context.Context, closing <-chan struct{}) *http.Server {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	s.tls(config)
	return &http.Server{
		Handler: api.NewHandler(api.Options{
			Callers: s.callers, Policies: s.policies, Exchange: s.exchange, Observer: s.metrics,
			Log: s.options.Log, Now: s.options.Clock.Now, Closing: closing,
		}),
		TLSConfig:         config,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          log.New(debugWriter{s.options.Log.V(1)}, "", 0),
		// Not ctx itself: its end must not cut off what is in flight.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
}

// finish ends in the order of dependence: calls, the work that calls have begun, the
// stores below it.
func (s *server) finish(ctx context.Context, web *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := web.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("finish the calls in flight: %w", errors.Join(err, web.Close()))
	}
	s.exchange.Wait()
	s.callers.Wait()
	return errors.Join(err, s.policies.Close())
}

// debugWriter takes what net/http has to say, most of it about broken handshakes.
type debugWriter struct{ log logr.Logger }

// Write implements [io.Writer].
func (d debugWriter) Write(line []byte) (int, error) {
	d.log.Info("http", "message", strings.TrimSpace(string(line)))
	return len(line), nil
}
