// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// parting is how long the webhook goes on after SIGTERM. New connections come to other
// replicas by then, but the API server keeps the one it has, and a call on it that meets
// its end is a pod that is refused.
const parting = 3 * time.Second

// endLater is a context that ends some time after ctx.
func endLater(ctx context.Context, after time.Duration) context.Context {
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(after, end) })
	return late
}

// partingServer has callers go elsewhere, with its answers, once leaving is closed.
type partingServer struct {
	webhook.Server
	leaving <-chan struct{}
}

// Register implements [webhook.Server].
func (s partingServer) Register(path string, hook http.Handler) {
	s.Server.Register(path, sendingAway(hook, s.leaving))
}

// sendingAway closes the connection with the answer; over HTTP/2 that is a GOAWAY, after
// which what is under way on it is answered.
func sendingAway(handler http.Handler, leaving <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-leaving:
			w.Header().Set("Connection", "close")
		default:
		}
		handler.ServeHTTP(w, r)
	})
}
