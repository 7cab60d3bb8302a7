// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tokenward/tokenward/sidecar/admin"
	"github.com/tokenward/tokenward/sidecar/framing"
	"github.com/tokenward/tokenward/sidecar/issuerclient"
	"github.com/tokenward/tokenward/sidecar/metrics"
	"github.com/tokenward/tokenward/sidecar/probes"
	"github.com/tokenward/tokenward/sidecar/proxy"
	"github.com/tokenward/tokenward/sidecar/reload"
	"github.com/tokenward/tokenward/sidecar/revocation"
	"github.com/tokenward/tokenward/sidecar/standstill"
)

const (
	// headTimeout bounds a request's head from its first byte.
	headTimeout = 10 * time.Second
	// idleTimeout is above that of common load balancers (60 s), so that they and not
	// we close idle connections; the other way round a request can meet the close.
	idleTimeout = 3 * time.Minute
	// memoryBytes bounds the remembered tokens: more than 10,000 of common size.
	memoryBytes = 24 << 20
	// adminTimeout bounds everything on the admin port.
	adminTimeout = 10 * time.Second
)

// sidecar is the parts, put together.
type sidecar struct {
	loader   *reload.Loader
	follower *revocation.Follower
	watch    *standstill.Watch
	admin    *admin.Handler
	proxy    *proxy.Proxy
	refresh  *issuerclient.Refresher
	clients  *connections
}

func assemble(o options, log *slog.Logger) *sidecar {
	m := metrics.New()
	streams := proxy.NewStreams()
	revoked := revocation.NewSet(time.Now, streams.End)
	loader := reload.New(reload.Options{
		Dir: o.settingsDir, Sessions: revoked, MemoryBytes: memoryBytes, Metrics: m, Log: log, Now: time.Now,
	})
	watch := standstill.New(time.Now)
	client := &issuerclient.Client{
		Settings: loader.Settings, IdentityFile: o.identityFile, Metrics: m, Now: time.Now, StoodStill: watch.Lasted,
	}
	s := &sidecar{loader: loader, watch: watch, refresh: &issuerclient.Refresher{Client: client}, clients: newConnections()}
	s.follower = &revocation.Follower{Set: revoked, Open: client.Revocations, Now: time.Now, Report: func(err error) {
		if err == nil {
			log.Info("revocations arrive again")
			return
		}
		log.Warn("revocations do not arrive; the issuer is asked again", "error", err)
	}}
	s.proxy = proxy.New(proxy.Options{
		Policies: loader, Issuer: client, Refresher: s.refresh,
		Keys:        &issuerclient.KeyFinder{Fetch: client.Keys, Offer: loader.Offer, Now: time.Now},
		Revocations: revoked, Streams: streams, Metrics: m, Log: log, Now: time.Now, Upstream: o.upstream,
		Leaving: s.clients.leaving.Load,
	})
	s.admin = &admin.Handler{
		Settings: loader, Revocations: s.follower, Metrics: m, Probes: probes.New(o.probes, o.upstream),
		Now: time.Now, Started: time.Now(),
	}
	s.admin.Gauges(revoked.Len, streams.Len)
	return s
}

// run serves until ctx ends, and then until what is in flight has finished or the
// drain timeout is over.
func run(ctx context.Context, o options, log *slog.Logger) error {
	var listen net.ListenConfig
	public, err := listen.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen is %q: %w", o.listen, err)
	}
	private, err := listen.Listen(ctx, "tcp", o.adminListen)
	if err != nil {
		return errors.Join(fmt.Errorf("--admin-listen is %q: %w", o.adminListen, err), public.Close())
	}
	return serve(ctx, o, log, public, private)
}

func serve(ctx context.Context, o options, log *slog.Logger, public, private net.Listener) error {
	s := assemble(o, log)
	s.loader.Check()
	door := &framing.Listener{Listener: &closedOnce{public, sync.OnceValue(public.Close)}, HeadTimeout: headTimeout}

	// What runs beside the requests goes on while they are finished.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var background sync.WaitGroup
	background.Go(func() { s.loader.Run(work) })
	background.Go(func() { s.follower.Run(work) })
	background.Go(func() { s.watch.Run(work) })
	s.admin.Leave = sync.OnceFunc(func() {
		log.Info("the pod ends: clients are told to connect elsewhere")
		s.clients.leaving.Store(true)
		go s.clients.closeWhenQuiet(work)
	})

	var inFlight sync.WaitGroup
	front := newServer(work, s.proxy, &inFlight, log)
	front.ConnState = s.clients.note
	back := &http.Server{
		Handler: s.admin.Routes(), ReadTimeout: adminTimeout, WriteTimeout: adminTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 2)
	go func() { failed <- front.Serve(door) }()
	go func() { failed <- back.Serve(private) }()
	log.Info("serving", "listen", public.Addr().String(), "admin", private.Addr().String(), "upstream", o.upstream)

	var err error
	select {
	case <-ctx.Done():
		s.admin.Draining.Store(true)
		log.Info("ending: requests in flight are finished", "drain_timeout", o.drainTimeout.String())
		err = door.Close()
		s.clients.settle(context.WithoutCancel(ctx))
		drain(context.WithoutCancel(ctx), front, &inFlight, o.drainTimeout, stopWork)
	case err = <-failed:
		stopWork()
	}
	err = errors.Join(err, front.Close(), back.Close())
	background.Wait()
	s.refresh.Wait()
	log.Info("ended")
	return err
}

// closedOnce can be closed before its server is shut down, which closes it again.
type closedOnce struct {
	net.Listener
	close func() error
}

func (l *closedOnce) Close() error { return l.close() }

func newServer(base context.Context, handler http.Handler, inFlight *sync.WaitGroup, log *slog.Logger) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inFlight.Add(1)
			defer inFlight.Done()
			handler.ServeHTTP(w, r)
		}),
		Protocols: protocols,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: 250},
		// A head is bounded by package framing, from its first byte. This one begins with
		// the connection, and clients open some before they need them.
		ReadHeaderTimeout: idleTimeout,
		IdleTimeout:       idleTimeout,
		// Package framing refuses larger heads with an answer of ours.
		MaxHeaderBytes: 2 * framing.MaxHead,
		// There is no write timeout: streams live as long as they like.
		ConnContext: proxy.ConnContext,
		BaseContext: func(net.Listener) context.Context { return base },
		// It would answer OPTIONS * before us.
		DisableGeneralOptionsHandler: true,
		// What net/http prints about connections can be forced by any client.
		ErrorLog: silent(log),
	}
}

// silent sends net/http's lines to the debug level, which is off.
func silent(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// drain waits for requests in flight, WebSockets among them, which http.Server does
// not wait for. What is left at the end is cut.
func drain(ctx context.Context, server *http.Server, inFlight *sync.WaitGroup, timeout time.Duration, cut context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if server.Shutdown(ctx) == nil {
		// No handler begins any more.
		done := make(chan struct{})
		go func() {
			inFlight.Wait()
			close(done)
		}()
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	cut()
}
