// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/tokenward/tokenward/internal/session"
)

// step is where an issuer is killed, or its client goes.
type step string

const (
	beforeSwap    step = "killed before the swap"
	swapSent      step = "killed after the swap was sent"
	swapCommitted step = "killed after the swap, before the answer"
	halfAnswer    step = "killed in the middle of the answer"
	clientGone    step = "connection cut after the swap"
)

func steps() []step { return []step{beforeSwap, swapSent, swapCommitted, halfAnswer, clientGone} }

// saboteur stands around the store and the handler of an issuer, and ends the process at
// one step. The product knows nothing of it.
type saboteur struct {
	session.Store
	step step
	// swapping is the session whose swap has begun.
	swapping atomic.Pointer[session.ID]
	swapped  io.Writer // is told
}

// die ends this process as the kernel does when memory runs out: nothing is finished,
// nobody is told.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// Swap implements [session.Store].
func (s *saboteur) Swap(ctx context.Context, next session.Session) (session.Session, error) {
	if s.step == beforeSwap {
		die()
	}
	s.swapping.Store(&next.ID)
	stored, err := s.Store.Swap(ctx, next)
	switch {
	case err != nil:
	case s.step == swapCommitted:
		die()
	case s.step == swapSent:
		select {} // whoever has sent it kills this process, and no answer must be faster
	case s.step == clientGone:
		_, _ = fmt.Fprintln(s.swapped, "swapped")
	}
	return stored, err
}

// between puts the saboteur between an issuer and its store.
func (s *saboteur) between(a access) (access, error) {
	if s.step != swapSent {
		return a, nil
	}
	switch a.Kind {
	case "redis":
		r, err := newRelay(a.Redis, s.sent())
		if err != nil {
			return a, err
		}
		a.Redis = r.address()
	case "postgres":
		at, err := url.Parse(a.Postgres)
		if err != nil {
			return a, err
		}
		r, err := newRelay(at.Host, s.sent())
		if err != nil {
			return a, err
		}
		at.Host = r.address()
		a.Postgres = at.String()
	default:
		a.wrap = func(next http.RoundTripper) http.RoundTripper { return updates{s, next} }
	}
	return a, nil
}

// sent looks for the swap's request, which names the session, in what has gone to the
// server on any connection.
func (s *saboteur) sent() func(chunk []byte) {
	return func(chunk []byte) {
		if id := s.swapping.Load(); id != nil && bytes.Contains(chunk, []byte(*id)) {
			die()
		}
	}
}

// updates are the requests to an API server.
type updates struct {
	saboteur *saboteur
	next     http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (u updates) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && u.saboteur.swapping.Load() != nil {
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { die() },
		}))
	}
	return u.next.RoundTrip(r)
}

// around is put around the handler.
func (s *saboteur) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch s.step {
		case halfAnswer:
			w = halfWriter{w}
		case clientGone:
			w = patientWriter{w, r.Context()}
		default:
		}
		next.ServeHTTP(w, r)
	})
}

// halfWriter writes half of an answer.
type halfWriter struct{ http.ResponseWriter }

func (h halfWriter) Write(body []byte) (int, error) {
	_, _ = h.ResponseWriter.Write(body[:len(body)/2])
	_ = http.NewResponseController(h.ResponseWriter).Flush()
	die()
	return 0, nil
}

func (h halfWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// patientWriter writes when the client has gone.
type patientWriter struct {
	http.ResponseWriter
	gone context.Context //nolint:containedctx // of one request
}

func (p patientWriter) Write(body []byte) (int, error) {
	<-p.gone.Done()
	return p.ResponseWriter.Write(body)
}

func (p patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
