// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// probed is the application whose health a test turns on and off:
//
//	workload probed [-listen :8080] [-control :9090]
//
// Of its states "started", "ready" and "live" the first is off until somebody says
// otherwise. On -listen they are GET /started (200 or 503) and so on, the services of
// grpc.health.v1.Health on the same port, and for probes over TCP it listens there only
// while all of tcp is on; -control has GET and PUT /<state>?on=true, and never a sidecar
// before it.
type probed struct {
	mu     sync.Mutex
	on     map[string]bool
	health *health.Server
	// tcp opens and closes the port of the application.
	tcp *port
}

func runProbed(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("probed", flag.ContinueOnError)
	listen := flags.String("listen", ":8080", "`address` of the application")
	control := flags.String("control", ":9090", "`address` where its health is changed")
	closed := flags.Bool("closed", false, "do not listen until the state tcp is turned on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p := &probed{on: map[string]bool{"started": false, "ready": true, "live": true}, health: health.NewServer()}
	for state, on := range p.on {
		p.health.SetServingStatus(state, serving(on))
	}
	p.tcp = &port{ctx: ctx, address: *listen, handler: p.application()}
	if err := p.set("tcp", !*closed); err != nil {
		return err
	}
	defer p.tcp.close()
	return serve(ctx, *control, http.HandlerFunc(p.serveControl))
}

func serving(on bool) grpc_health_v1.HealthCheckResponse_ServingStatus {
	if on {
		return grpc_health_v1.HealthCheckResponse_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

func (p *probed) application() http.Handler {
	calls := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(calls, p.health)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			calls.ServeHTTP(w, r)
			return
		}
		if on, known := p.get(strings.TrimPrefix(r.URL.Path, "/")); known {
			say(w, on)
			return
		}
		answer(w, r)
	})
}

func say(w http.ResponseWriter, on bool) {
	if !on {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, on)
}

func (p *probed) serveControl(w http.ResponseWriter, r *http.Request) {
	state := strings.TrimPrefix(r.URL.Path, "/")
	on, known := p.get(state)
	switch {
	case !known:
		http.NotFound(w, r)
	case r.Method == http.MethodPut:
		if err := p.set(state, r.URL.Query().Get("on") == "true"); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	default:
		say(w, on)
	}
}

func (p *probed) get(state string) (on, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	on, known = p.on[state]
	return on, known
}

func (p *probed) set(state string, on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on[state] = on
	if state != "tcp" {
		p.health.SetServingStatus(state, serving(on))
		return nil
	}
	if on {
		return p.tcp.open()
	}
	p.tcp.close()
	return nil
}

// port is a server that can be closed and opened again.
type port struct {
	ctx     context.Context //nolint:containedctx // the life of the program
	address string
	handler http.Handler
	server  *http.Server
}

func (p *port) open() error {
	if p.server != nil {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(p.ctx, "tcp", p.address)
	if err != nil {
		return err
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	p.server = &http.Server{Handler: p.handler, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	go func(server *http.Server) { _ = server.Serve(listener) }(p.server)
	return nil
}

func (p *port) close() {
	if p.server != nil {
		_ = p.server.Close()
		p.server = nil
	}
}

// runCheck is the command of a probe by exec: it fails unless a GET is answered with 200.
func runCheck(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: workload check URL")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], http.NoBody) //nolint:gosec // the probe says what
	if err != nil {
		return err
	}
	response, err := (&http.Client{Timeout: 5 * time.Second}).Do(request) //nolint:gosec // the same
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // not read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", args[0], response.Status)
	}
	return nil
}
