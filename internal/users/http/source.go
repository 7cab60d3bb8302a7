// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	nethttp "net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tokenward/tokenward/internal/users"
)

const (
	// CheckSubject is what [Source.Check] looks up. No user should have it.
	CheckSubject = "tokenward-check"

	// mistakeLasts is for how long Check reports what another answer has shown.
	mistakeLasts = 10 * time.Minute
)

// Source is a [users.Source] over one https URL.
type Source struct {
	client  *nethttp.Client
	url     string
	token   users.Credential
	fields  []string
	timeout time.Duration
	now     func() time.Time

	lastMistake atomic.Pointer[seen]
}

// seen is a mistake that an answer has shown.
type seen struct {
	err error
	at  time.Time
}

var (
	_ users.Source       = (*Source)(nil)
	_ users.FieldChecker = (*Source)(nil)
)

// question is the body of a request.
type question struct {
	Action  string            `json:"action"`
	Fields  map[string]string `json:"fields,omitempty"`
	Subject string            `json:"subject,omitempty"`
}

const (
	authenticate = "authenticate"
	lookup       = "lookup"
)

// Authenticate implements [users.Source].
func (s *Source) Authenticate(ctx context.Context, fields map[string]string) (users.User, error) {
	if err := s.CheckFields(fields); err != nil {
		return users.User{}, err
	}
	for _, value := range fields {
		// An empty one proves nothing, though some directories take it for an anonymous
		// login; JSON would mend broken UTF-8 into something that was not presented.
		if value == "" || !utf8.ValidString(value) {
			return users.User{}, users.ErrNoUser
		}
	}
	user, err := s.ask(ctx, question{Action: authenticate, Fields: fields})
	if err != nil {
		return users.User{}, s.remember(err)
	}
	if user.Disabled {
		return users.User{}, users.NoUser(user.Subject)
	}
	return user, nil
}

// CheckFields implements [users.FieldChecker].
func (s *Source) CheckFields(fields map[string]string) error {
	return users.CheckFields(fields, s.fields)
}

// Lookup implements [users.Source].
func (s *Source) Lookup(ctx context.Context, subject string) (users.User, error) {
	user, err := s.ask(ctx, question{Action: lookup, Subject: subject})
	if err == nil && user.Subject != subject {
		err = mistake("to a lookup has another subject than it was asked for")
	}
	if err != nil {
		return users.User{}, s.remember(err)
	}
	if user.Disabled {
		return users.User{}, users.ErrDisabled
	}
	return user, nil
}

// Check looks up [CheckSubject], to see whether the service can be reached, is
// trusted, accepts the token and answers as agreed. It returns nil or a
// [*users.UnavailableError], or the context's own error. What another answer has
// shown to be wrong is reported for ten minutes.
func (s *Source) Check(ctx context.Context) error {
	_, err := s.Lookup(ctx, CheckSubject)
	if err != nil && !errors.Is(err, users.ErrNoUser) && !errors.Is(err, users.ErrDisabled) {
		return err
	}
	if last := s.lastMistake.Load(); last != nil && s.now().Sub(last.at).Abs() < mistakeLasts {
		return last.err
	}
	return nil
}

// Close ends the connections that are idle. The source may still be used.
func (s *Source) Close() { s.client.CloseIdleConnections() }

func (s *Source) remember(err error) error {
	var unavailable *users.UnavailableError
	if errors.As(err, &unavailable) && unavailable.Fault == users.FaultAnswer {
		s.lastMistake.Store(&seen{err: err, at: s.now()})
	}
	return err
}

func (s *Source) ask(ctx context.Context, q question) (users.User, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	request, err := s.request(ctx, q)
	if err != nil {
		return users.User{}, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return users.User{}, explain(caller, err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := verdict(q.Action, response); err != nil {
		return users.User{}, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return users.User{}, explain(caller, err)
	}
	if len(body) > maxAnswer {
		return users.User{}, mistake("has more than %d bytes", maxAnswer)
	}
	return parseAnswer(body)
}

func (s *Source) request(ctx context.Context, q question) (*nethttp.Request, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, errors.New("write the question to the user service")
	}
	request, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("make the request to the user service")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "tokenward")
	if bearer := s.token.Reveal(); bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	return request, nil
}

// verdict is nil when there is a user to read.
func verdict(action string, response *nethttp.Response) error {
	status, kind := response.StatusCode, mediaType(response)
	switch {
	case status == nethttp.StatusOK && kind == "application/json":
		return nil
	case status == nethttp.StatusOK:
		return mistake("is not application/json")
	case action == authenticate && (status == nethttp.StatusUnauthorized || status == nethttp.StatusForbidden || status == nethttp.StatusNotFound):
		return users.ErrNoUser
	case status == nethttp.StatusNotFound && (kind == "application/json" || kind == "application/problem+json"):
		return users.ErrNoUser
	case status == nethttp.StatusNotFound:
		return mistake("to a lookup is 404 without application/json: that is taken for a wrong url, not for a user who was removed")
	case status == nethttp.StatusUnauthorized, status == nethttp.StatusForbidden:
		return &users.UnavailableError{
			Fault:  users.FaultCredentials,
			Detail: fmt.Sprintf("the user service answers %d to a lookup: it does not accept the bearer token, or needs one", status),
		}
	case status >= 300 && status < 400:
		return mistake("is a redirect (%d), which is not followed: name the URL that answers itself", status)
	case status == nethttp.StatusTooManyRequests, status >= 500:
		return &users.UnavailableError{Fault: users.FaultUnavailable, Detail: fmt.Sprintf("the user service fails with status %d", status)}
	}
	return mistake("has the status %d, which means nothing here", status)
}

func mediaType(response *nethttp.Response) string {
	kind, parameters, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if charset, ok := parameters["charset"]; err != nil || ok && !strings.EqualFold(charset, "utf-8") {
		return ""
	}
	return kind
}

// explain makes an error that may be shown of one of net/http, which holds the URL
// and addresses. A caller that has given up gets its own context's error.
func explain(caller context.Context, err error) error {
	if caller.Err() != nil {
		return fmt.Errorf("ask the user service: %w", caller.Err())
	}
	if errors.Is(err, nethttp.ErrSchemeMismatch) {
		return &users.UnavailableError{Fault: users.FaultTLS, Detail: "url: the server speaks http and not https"}
	}
	if e, ok := users.ConnectionFault(err); ok {
		e.Detail = "url: " + e.Detail
		if e.Fault == users.FaultTimeout { // some wait for the end of a line when they are greeted in TLS
			e.Detail += ", or speaks no TLS at this port"
		}
		return e
	}
	return &users.UnavailableError{Fault: users.FaultUnavailable, Detail: "the user service does not answer as it should"}
}
