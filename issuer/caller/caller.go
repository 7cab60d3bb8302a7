// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package caller owns who is calling: it has the API server review the projected
// service account token that a sidecar presents (TokenReview, audience "tokenward"),
// and remembers the answer for at most a minute.
//
// What a caller may do is decided elsewhere.
package caller

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/tokenward/tokenward/internal/flight"
	"github.com/tokenward/tokenward/internal/protocol"
)

const (
	// Remember is the longest time that an accepted token is not asked about again:
	// so long may a deleted pod's token live on.
	Remember = time.Minute
	// rememberRefused keeps a flood of bad tokens away from the API server, and is
	// short because the API server may have been behind.
	rememberRefused = 5 * time.Second

	reviewTimeout = 10 * time.Second
	// maxTokenLength: projected tokens are 1 to 2 KiB.
	maxTokenLength = 16 << 10

	podNameExtra = "authentication.kubernetes.io/pod-name"
	userPrefix   = "system:serviceaccount:"
)

// Pod is a caller.
type Pod struct {
	Namespace      string
	ServiceAccount string
	Name           string
	// TokenExpires is when the token that proved all this ends.
	TokenExpires time.Time
}

// ErrRefused is what the errors wrap that mean "not a caller we serve". Any other
// error means that nothing is known, because the API server did not answer.
var ErrRefused = errors.New("the caller's service account token is not accepted")

func refused(why string) error { return fmt.Errorf("%w: %s", ErrRefused, why) }

// Reviewer has a token reviewed by the API server.
type Reviewer interface {
	// ReviewToken returns the status of a TokenReview for the audience. An error
	// means that there was no answer.
	ReviewToken(ctx context.Context, token, audience string) (authenticationv1.TokenReviewStatus, error)
}

// Outcome of an authentication, for metrics.
type Outcome string

// The outcomes.
const (
	Remembered  Outcome = "remembered"
	Accepted    Outcome = "accepted"
	Refused     Outcome = "refused"
	Unavailable Outcome = "unavailable"
)

// Outcomes lists every outcome.
func Outcomes() []Outcome { return []Outcome{Remembered, Accepted, Refused, Unavailable} }

// Authenticator tells who calls. It is safe for concurrent use.
type Authenticator struct {
	reviewer Reviewer
	now      func() time.Time
	observe  func(Outcome)
	accepted memory
	// refused is apart, so that a flood of forged tokens makes nobody else forgotten.
	refused memory
	reviews flight.Group[digest, verdict]
}

// digest of a token. Tokens themselves are not kept.
type digest [sha256.Size]byte

// verdict on a token: a pod, or an error that wraps ErrRefused.
type verdict struct {
	pod   Pod
	err   error
	until time.Time
}

// New makes an authenticator; observe is told each outcome.
func New(reviewer Reviewer, now func() time.Time, observe func(Outcome)) *Authenticator {
	return &Authenticator{reviewer: reviewer, now: now, observe: observe}
}

// Authenticate takes the value of the Authorization header. Its errors wrap
// [ErrRefused], or mean that the API server does not answer; none holds the token.
func (a *Authenticator) Authenticate(ctx context.Context, authorization string) (Pod, error) {
	pod, outcome, err := a.authenticate(ctx, authorization)
	a.observe(outcome)
	return pod, err
}

// Wait returns when no review is under way any more.
func (a *Authenticator) Wait() { a.reviews.Wait() }

func (a *Authenticator) authenticate(ctx context.Context, authorization string) (Pod, Outcome, error) {
	raw, err := bearer(authorization)
	if err != nil {
		return Pod{}, Refused, err
	}
	expires, err := precheck(raw, a.now())
	if err != nil {
		return Pod{}, Refused, err
	}
	key := digest(sha256.Sum256([]byte(raw)))
	if v, ok := a.remembered(key, a.now()); ok {
		return v.pod, Remembered, v.err
	}
	v, _, err := a.reviews.Do(ctx, key, reviewTimeout, func(ctx context.Context) (verdict, error) {
		return a.review(ctx, key, raw, expires)
	})
	switch {
	case err != nil:
		return Pod{}, Unavailable, fmt.Errorf("review the caller's token: %w", err)
	case v.err != nil:
		return Pod{}, Refused, v.err
	}
	return v.pod, Accepted, nil
}

func (a *Authenticator) remembered(key digest, now time.Time) (verdict, bool) {
	for _, m := range []*memory{&a.accepted, &a.refused} {
		if v, ok := m.get(key, now); ok {
			return v, true
		}
	}
	return verdict{}, false
}

func (a *Authenticator) review(ctx context.Context, key digest, raw string, expires time.Time) (verdict, error) {
	asked := a.now()
	// A review may have ended between this caller's look into the memory and now.
	if v, ok := a.remembered(key, asked); ok {
		return v, nil
	}
	status, err := a.reviewer.ReviewToken(ctx, raw, protocol.Audience)
	if err != nil {
		return verdict{}, err
	}
	var v verdict
	v.pod, v.err = judge(status)
	if v.err != nil {
		v.until = asked.Add(rememberRefused)
		a.refused.put(key, v, asked)
		return v, nil //nolint:nilerr // a refusal is a verdict, and joined calls share it
	}
	v.pod.TokenExpires = expires
	v.until = asked.Add(Remember)
	if expires.Before(v.until) {
		v.until = expires
	}
	a.accepted.put(key, v, asked)
	return v, nil
}

func bearer(authorization string) (string, error) {
	scheme, raw, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || raw == "" {
		return "", refused("there is no bearer token in Authorization")
	}
	if len(raw) > maxTokenLength {
		return "", refused("it is too long")
	}
	return raw, nil
}

// precheck reads what a token says of itself, unverified: enough to not trouble the
// API server with what it would refuse anyway, and the time it ends.
func precheck(raw string, now time.Time) (expires time.Time, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return time.Time{}, refused("it is not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, refused("it is not a JWT")
	}
	var claims struct {
		Audience []string `json:"aud"`
		Expires  int64    `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return time.Time{}, refused("its claims are not those of a service account token")
	}
	if !slices.Contains(claims.Audience, protocol.Audience) {
		return time.Time{}, refused("its audience is not " + protocol.Audience)
	}
	expires = time.Unix(claims.Expires, 0)
	if !now.Before(expires) {
		return time.Time{}, refused("it has expired")
	}
	return expires, nil
}

// judge decides on what the API server says. A server that knows no audiences
// leaves status.audiences empty; it may have accepted a token that is meant for
// somebody else, so that is a refusal.
func judge(status authenticationv1.TokenReviewStatus) (Pod, error) {
	if !status.Authenticated {
		return Pod{}, refused("the API server does not know it")
	}
	if !slices.Contains(status.Audiences, protocol.Audience) {
		return Pod{}, refused("the API server does not confirm the audience " + protocol.Audience)
	}
	name, ok := strings.CutPrefix(status.User.Username, userPrefix)
	namespace, account, found := strings.Cut(name, ":")
	if !ok || !found || namespace == "" || account == "" || strings.Contains(account, ":") {
		return Pod{}, refused("it belongs to no service account")
	}
	names := status.User.Extra[podNameExtra]
	if len(names) != 1 || names[0] == "" {
		return Pod{}, refused("it is not bound to a pod")
	}
	return Pod{Namespace: namespace, ServiceAccount: account, Name: names[0]}, nil
}
