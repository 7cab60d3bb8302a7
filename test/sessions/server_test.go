// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/issuer/api"
	"github.com/tokenward/tokenward/issuer/caller"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// podToken is what every sidecar here presents. Who may call is tested elsewhere.
const podToken = "the-token-of-a-pod"

// front is what stands before the handler of an issuer's own API.
type front struct {
	*issuer
	closing chan struct{}
}

func (f front) Authenticate(_ context.Context, authorization string) (caller.Pod, error) {
	if authorization != "Bearer "+podToken {
		return caller.Pod{}, fmt.Errorf("%w: it is not the pod's", caller.ErrRefused)
	}
	return caller.Pod{Namespace: tenant, Name: "web-1", TokenExpires: time.Now().Add(time.Hour)}, nil
}

func (f front) Policy(namespace, name string) (*exchange.Policy, error) {
	if namespace != tenant || name != f.policy.Name {
		return nil, refusal.Unavailable("there is no such policy", nil)
	}
	return f.policy, nil
}

func (front) CallDone(protocol.Call, string, time.Duration) {}
func (front) Streams(int)                                   {}

// serve serves an issuer's API on a loopback port until the returned function is called.
// around stands before the handler; nil for nothing.
func serve(i *issuer, c certificate, around func(http.Handler) http.Handler) (address string, stop func(), err error) {
	config, err := c.server()
	if err != nil {
		return "", nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	f := front{issuer: i, closing: make(chan struct{})}
	handler := api.NewHandler(api.Options{
		Callers: f, Policies: f, Exchange: i.service, Observer: f, Log: logr.Discard(), Now: time.Now, Closing: f.closing,
	})
	if around != nil {
		handler = around(handler)
	}
	web := &http.Server{Handler: handler, TLSConfig: config, ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := web.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return listener.Addr().String(), func() {
		close(f.closing)
		_ = web.Close()
		<-ended
	}, nil
}
