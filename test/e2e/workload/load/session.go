// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"
)

const (
	// callTimeout bounds one request.
	callTimeout = 30 * time.Second
	// maxAnswer is more than the application says.
	maxAnswer = 64 << 10
	// maxExample is how much of a wrong answer is kept.
	maxExample = 300
	// order is the body of each request. It is a POST, because Go's client sends a GET
	// a second time by itself when the server has closed the connection.
	order = `{"article":"a","quantity":1}`
)

// noAnswer begins what is said of a request that got none.
const noAnswer = "no answer: "

// session is one client.
type session struct {
	plan  Plan
	tally *tally
	// keeping keeps its connections alive, closing uses each once.
	keeping, closing *http.Transport

	mu    sync.Mutex
	token string
	// used are the connections that were answered on.
	used map[net.Conn]*history
}

// history of a connection.
type history struct {
	pod      string
	requests int
}

func newSession(plan Plan, t *tally) *session {
	s := &session{plan: plan, tally: t, used: map[net.Conn]*history{}}
	transport := func() *http.Transport {
		return &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
				if err == nil {
					t.connected()
				}
				return conn, err
			},
			DisableCompression: true, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 16,
		}
	}
	s.keeping, s.closing = transport(), transport()
	s.closing.DisableKeepAlives = true
	return s
}

func (s *session) close() { s.keeping.CloseIdleConnections() }

func (s *session) logIn(ctx context.Context) error {
	got, err := s.send(ctx, s.closing, "/auth/token", "", s.plan.Login)
	if err != nil {
		return errors.New(noAnswer + cause(err))
	}
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if got.status != http.StatusOK || json.Unmarshal(got.body, &body) != nil || body.AccessToken == "" {
		return fmt.Errorf("status %d %s of a login", got.status, got.reason())
	}
	s.token = body.AccessToken
	return nil
}

// call is one request with the session's token.
func (s *session) call(ctx context.Context, due time.Time, fresh bool) outcome {
	transport := s.keeping
	if fresh {
		transport = s.closing
	}
	s.mu.Lock()
	sent := s.token
	s.mu.Unlock()
	got, err := s.send(ctx, transport, "/orders", sent, order)
	o := got.outcome(due, err)
	if err != nil {
		return o
	}
	o.newToken = s.keep(sent, got.header)
	seen, ok := got.application()
	switch {
	case got.status != http.StatusOK:
		o.failure = fmt.Sprintf("status %d %s", got.status, got.reason())
	case !ok:
		o.failure = "status 200, and not from the application"
	case len(seen.Header.Values("X-User-Id")) != 1 || seen.Header.Get("X-User-Id") != s.plan.User:
		o.failure, o.unguarded = "the application did not see the user", true
	}
	return o
}

// keep is rules 1 and 3 of docs/clients.md.
func (s *session) keep(sent string, header http.Header) bool {
	returned, ok := strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != sent {
		return false
	}
	s.token = returned
	return true
}

// callToBeRefused brings a forged token, or none.
func (s *session) callToBeRefused(ctx context.Context, due time.Time, forged bool) outcome {
	raw, reason := "", "token_missing"
	if forged {
		s.mu.Lock()
		raw, reason = forge(s.token), "signature_invalid"
		s.mu.Unlock()
	}
	got, err := s.send(ctx, s.keeping, "/orders", raw, order)
	o := got.outcome(due, err)
	o.mustFail = true
	if err != nil {
		return o
	}
	switch _, fromApplication := got.application(); {
	case got.status < 300 || fromApplication:
		o.failure, o.letIn = fmt.Sprintf("status %d instead of %s", got.status, reason), true
	case got.status != http.StatusForbidden || got.reason() != reason:
		o.failure = fmt.Sprintf("status %d %s instead of %s", got.status, got.reason(), reason)
	}
	return o
}

// forge changes the signature in the middle, where every bit counts.
func forge(token string) string {
	at := strings.LastIndex(token, ".") + 20
	replacement := "A"
	if token[at] == 'A' {
		replacement = "B"
	}
	return token[:at] + replacement + token[at+1:]
}

// answer is what came back, and over what.
type answer struct {
	status          int
	header          http.Header
	body            []byte
	pod, connection string
}

// seen is what the application says that it has seen.
type seen struct {
	Pod    string      `json:"pod"`
	Header http.Header `json:"header"`
}

func (a answer) application() (s seen, ok bool) {
	return s, json.Unmarshal(a.body, &s) == nil && s.Pod != ""
}

func (a answer) reason() string {
	var problem struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(a.body, &problem)
	return problem.Reason
}

func (a answer) outcome(due time.Time, err error) outcome {
	o := outcome{due: due, ended: time.Now(), pod: a.pod, connection: a.connection}
	if err != nil {
		o.failure = noAnswer + cause(err)
		return o
	}
	if a.status != http.StatusOK {
		o.answer = string(a.body[:min(len(a.body), maxExample)])
	}
	return o
}

// cause is an error without the addresses, by which equal ones would differ.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// send sends one request, once.
func (s *session) send(ctx context.Context, transport *http.Transport, path, token, body string) (answer, error) {
	var (
		got  answer
		conn net.Conn
	)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn }})
	// A body that cannot be had again keeps the transport from sending it again.
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.plan.URL+path, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return got, err
	}
	request.ContentLength = int64(len(body))
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := transport.RoundTrip(request)
	if err == nil {
		got.status, got.header = response.StatusCode, response.Header
		got.body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
		err = errors.Join(err, response.Body.Close())
	}
	s.remember(conn, &got, err != nil || transport == s.closing || response.Close)
	return got, err
}

// remember says which pod a connection led to, which its address does not.
func (s *session) remember(conn net.Conn, got *answer, ends bool) {
	got.connection = "none"
	if conn == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.used[conn]
	if h == nil {
		h = &history{}
		s.used[conn] = h
	}
	got.connection = "new"
	if h.requests > 0 {
		got.connection = fmt.Sprintf("of %d requests before", h.requests)
	}
	h.requests++
	if seen, ok := got.application(); ok {
		h.pod = seen.Pod
	}
	got.pod = h.pod
	if ends {
		delete(s.used, conn)
	}
}
