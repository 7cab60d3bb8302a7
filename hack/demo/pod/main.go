// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command pod is what the demo runs in pods: the application, and a client that makes
// the requests of the machine outside from inside the cluster.
//
//	pod shop          the application
//	pod relay TO      each connection becomes one to TO, "shop.shop:80"
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tokenward/tokenward/hack/demo/shop"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "pod: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":8080")
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "shop":
		return serve(ctx, listener)
	case len(args) == 2 && args[0] == "relay":
		return relay(ctx, listener, args[1])
	}
	return errors.New("usage: pod shop | pod relay TO")
}

func serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(shop.Answer)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return server.Shutdown(ctx)
}

// relay passes on bytes and understands none of them: what a client and the cluster say
// to each other is theirs.
func relay(ctx context.Context, listener net.Listener, to string) error {
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	for {
		from, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed): // it was told to end
			return nil
		case err != nil:
			return err
		}
		go func() {
			defer from.Close() //nolint:errcheck // both ways have ended
			onward, err := reach(ctx, to)
			if err != nil {
				_, _ = fmt.Fprintf(os.Stderr, "relay: %v\n", err)
				end(from.(*net.TCPConn))
				return
			}
			defer onward.Close() //nolint:errcheck // as above
			pass(from.(*net.TCPConn), onward.(*net.TCPConn))
		}()
	}
}

// reach connects. A node refuses connections to a Service until it has heard of the
// Service's pods, which may be a moment after they are ready.
func reach(ctx context.Context, to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// end closes a connection without resetting it, which would end `kubectl port-forward`.
func end(conn *net.TCPConn) {
	_ = conn.CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.Copy(io.Discard, conn)
}

// pass copies both ways until both have ended.
func pass(a, b *net.TCPConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, b)
		_ = a.CloseWrite()
	}()
	_, _ = io.Copy(b, a)
	_ = b.CloseWrite()
	<-done
}
