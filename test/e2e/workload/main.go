// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command workload is what the end-to-end tests run in pods: an application that
// knows nothing of Tokenward, and a caller that makes a test's requests from inside
// the cluster.
//
//	workload serve   the application
//	workload call    the caller
//	workload probed  an application whose health a test turns on and off
//	workload job     an application that ends after some requests
//	workload check   the command of a probe
//	workload load    many requests at a fixed rate, counted
//	workload kill    ends another process of the pod, as a crash would
//	workload freeze  stops a process of another pod for a while
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

	"github.com/tokenward/tokenward/test/e2e/workload/load"
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
	commands := map[string]func(context.Context, []string) error{
		"serve":  func(ctx context.Context, args []string) error { return runServer(ctx, args, http.HandlerFunc(answer)) },
		"call":   func(ctx context.Context, args []string) error { return runServer(ctx, args, newCaller()) },
		"probed": runProbed,
		"job":    runJob,
		"check":  runCheck,
		"load":   func(ctx context.Context, args []string) error { return runServer(ctx, args, &load.Handler{}) },
		"kill":   func(_ context.Context, args []string) error { return kill("/proc", args) },
		"freeze": func(ctx context.Context, args []string) error { return freeze(ctx, "/proc", args) },
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("usage: workload serve|call|probed|job|check|load|kill|freeze [flags]; -h shows the flags")
	}
	return commands[args[0]](ctx, args[1:])
}

func runServer(ctx context.Context, args []string, handler http.Handler) error {
	flags := flag.NewFlagSet("workload", flag.ContinueOnError)
	listen := flags.String("listen", ":8080", "`address`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return serve(ctx, *listen, handler)
}

// serve serves until ctx ends, and then what is in flight.
func serve(ctx context.Context, listen string, handler http.Handler) error {
	server := &http.Server{Addr: listen, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
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
