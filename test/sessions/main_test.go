// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sessions_test measures what the product promises about sessions: against real
// servers, with several issuers, processes that are killed and streams that are cut.
//
// `go test` runs every figure with few rounds and asserts what must always hold.
// `make bench-sessions` runs the same with the full rounds and prints a table; there too
// only what must always hold decides, and times stand beside their goals.
package sessions_test

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

var rounds = flag.Int("rounds", 0, "rounds of the exactly-once figure, by which the others are scaled; 0 runs a few of each")

func TestMain(m *testing.M) {
	if os.Getenv(issuerVariable) != "" {
		os.Exit(serveUntilKilled(os.Stdin, os.Stdout, os.Stderr))
	}
	m.Run()
}

// TestSessions is one test, because its figures share servers that take a while to start.
func TestSessions(t *testing.T) {
	// The first interrupt lets everything end in order, the second one ends it at once.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	size := fewRounds()
	if *rounds > 0 {
		size = manyRounds(*rounds)
	}
	r := newReport(*rounds > 0, os.Stdout)
	defer r.print()
	w := newWorld(ctx, t, size, r)
	for _, figure := range []func(*testing.T, *world){exactlyOnce, crashes, theft, feed, rates, timing} {
		w.interrupted(t)
		figure(t, w)
	}
}
