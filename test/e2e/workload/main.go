// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command workload is what the end-to-end tests run in pods: an application that
// knows nothing of Tokenward, and a caller that makes a test's requests from inside
// the cluster.
//
//	workload serve   the application
//	workload call    the caller
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "workload: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	handlers := map[string]http.Handler{"serve": http.HandlerFunc(answer), "call": newCaller()}
	if len(args) == 0 || handlers[args[0]] == nil {
		return errors.New("usage: workload serve|call [-listen :8080]")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	listen := flags.String("listen", ":8080", "`address`")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	server := &http.Server{Addr: *listen, Handler: handlers[args[0]], ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// Requests in flight end first, as in every application that is rolled with care.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return server.Shutdown(ctx)
}
