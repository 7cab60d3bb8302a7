// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package load offers requests to a workload at a fixed rate, and counts what becomes of
// them, for the tests that disturb a cluster meanwhile.
//
// Requests are sent by schedule: each has a time at which it is due, and its latency
// counts from then, so that a server that stands still is not asked less and does not
// look faster. Each session is a client of its own, with its own connections, and keeps
// the newest token as docs/clients.md says. Nothing is ever sent twice: a request that
// fails is a failure.
//
// It owns neither what is disturbed nor what is too much: that is for the tests to say.
package load

import (
	"fmt"
	"time"
)

// Plan is what a test wants offered.
type Plan struct {
	// URL of the workload, as its clients know it: "http://shop.shop.svc.cluster.local".
	URL string `json:"url"`
	// Login is the body of a login. Each session is one login with it.
	Login string `json:"login"`
	// User is what the application must see in X-User-Id, and nothing else: an answer
	// with another one came from an application that nobody guards.
	User string `json:"user"`
	// Sessions that take turns.
	Sessions int `json:"sessions"`
	// JoinSeconds is how long it takes until all have logged in.
	JoinSeconds int `json:"joinSeconds"`
	// PerSecond are requests with a session's token.
	PerSecond int `json:"perSecond"`
	// BadPerSecond are requests that must be refused: every other one without a token,
	// the rest with a forged one.
	BadPerSecond int `json:"badPerSecond"`
	// NewConnectionEvery makes every so-and-so-many-th request use a connection of its
	// own; the others keep theirs alive. 0 is never.
	NewConnectionEvery int `json:"newConnectionEvery"`
}

// check says what cannot be offered.
func (p Plan) check() error {
	if p.URL == "" || p.Sessions < 1 || p.PerSecond < 1 || p.BadPerSecond < 0 || p.JoinSeconds < 0 || p.NewConnectionEvery < 0 {
		return fmt.Errorf("url, sessions and perSecond are needed, and nothing below 0: %+v", p)
	}
	return nil
}

// Report is what became of the requests so far.
type Report struct {
	// Sent are the requests with a token; each is in OK or in Failed once it has ended.
	Sent int `json:"sent"`
	OK   int `json:"ok"`
	// Refused are those that had to be refused, and were, for the right reason.
	Refused int `json:"refused"`
	// LetIn are those that had to be refused, and were not.
	LetIn int `json:"letIn"`
	// Unguarded are answers of an application that did not see the user's name.
	Unguarded int `json:"unguarded"`
	// Failed counts failures of both sorts, and of logins, by what happened.
	Failed map[string]int `json:"failed"`
	// LastFailed is when the last one of each sort was due, RFC 3339 in UTC.
	LastFailed map[string]string `json:"lastFailed"`
	// Examples are the first failures.
	Examples []Failure `json:"examples"`
	// Sessions that are logged in.
	Sessions int `json:"sessions"`
	// NewTokens came back in response headers.
	NewTokens int `json:"newTokens"`
	// Connections that were opened.
	Connections int `json:"connections"`
	// Pods that answered, and how often.
	Pods map[string]int `json:"pods"`
	// Latency of what was OK.
	Latency Latency `json:"latency"`
	// Late is by how much the schedule was missed at worst: a starved client.
	Late Milliseconds `json:"late"`
}

// Failures is how many requests failed.
func (r Report) Failures() (n int) {
	for _, count := range r.Failed {
		n += count
	}
	return n
}

// Failure is one request that failed.
type Failure struct {
	// Time at which it was due, a login at which it was sent, RFC 3339 in UTC.
	Time string `json:"time"`
	// After is how long it took.
	After Milliseconds `json:"after"`
	// Pod that answered, or that was the last to answer on this connection; "" on a new one.
	Pod  string `json:"pod"`
	What string `json:"what"`
	// Connection says whether it was a new one, and how many requests it had carried.
	Connection string `json:"connection"`
	// Answer is the beginning of the body.
	Answer string `json:"answer,omitempty"`
}

// Latency from when a request was due to the end of its answer.
type Latency struct {
	P50  Milliseconds `json:"p50"`
	P99  Milliseconds `json:"p99"`
	P999 Milliseconds `json:"p999"`
	Max  Milliseconds `json:"max"`
}

// Milliseconds with one digit after the point.
type Milliseconds float64

func milliseconds(d time.Duration) Milliseconds {
	return Milliseconds(float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond))
}
