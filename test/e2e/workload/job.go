// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"net/http"
	"sync/atomic"
)

// runJob is an application that has an end: it serves until so many requests have
// reached it.
//
//	workload job [-listen :8080] [-requests 3]
func runJob(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("job", flag.ContinueOnError)
	listen := flags.String("listen", ":8080", "`address`")
	requests := flags.Int64("requests", 3, "how `many` requests make the job done")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	var served atomic.Int64
	return serve(ctx, *listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r)
		if served.Add(1) == *requests {
			done()
		}
	}))
}
