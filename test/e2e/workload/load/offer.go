// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Run is one load that is being offered.
type Run struct {
	plan     Plan
	tally    *tally
	stop     context.CancelFunc
	offering sync.WaitGroup
	inFlight sync.WaitGroup

	mu       sync.Mutex
	sessions []*session // that are logged in
}

// Start logs a session in, and begins to offer. The other sessions join it little by
// little, so that their tokens do not expire all at once.
func Start(ctx context.Context, plan Plan) (*Run, error) {
	if err := plan.check(); err != nil {
		return nil, err
	}
	r := &Run{plan: plan, tally: newTally()}
	if err := r.join(ctx); err != nil {
		return nil, err
	}
	offering, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	// In flight is what goes on after the offer ends, hence the context without an end.
	working := context.WithoutCancel(ctx)
	r.offering.Go(func() {
		offer(offering, plan.PerSecond, func(i int, due time.Time) {
			s := r.session(i)
			fresh := plan.NewConnectionEvery > 0 && i%plan.NewConnectionEvery == 0
			r.tally.begin(due, time.Now(), false)
			r.inFlight.Go(func() { r.tally.end(s.call(working, due, fresh)) })
		})
	})
	r.offering.Go(func() {
		offer(offering, plan.BadPerSecond, func(i int, due time.Time) {
			s := r.session(i)
			r.tally.begin(due, time.Now(), true)
			r.inFlight.Go(func() { r.tally.end(s.callToBeRefused(working, due, i%2 == 0)) })
		})
	})
	r.offering.Go(func() { r.joinAll(offering) })
	return r, nil
}

// join logs one more session in.
func (r *Run) join(ctx context.Context) error {
	s := newSession(r.plan, r.tally)
	if err := s.logIn(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions = append(r.sessions, s)
	return nil
}

func (r *Run) joinAll(ctx context.Context) {
	began := time.Now()
	for i := 1; i < r.plan.Sessions; i++ {
		due := began.Add(time.Duration(i) * time.Duration(r.plan.JoinSeconds) * time.Second / time.Duration(r.plan.Sessions))
		if waitUntil(ctx, due) != nil {
			return
		}
		sent := time.Now()
		if err := r.join(context.WithoutCancel(ctx)); err != nil {
			r.tally.failed(sent, err.Error())
		}
	}
}

func (r *Run) session(i int) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[i%len(r.sessions)]
}

// Report is what became of the requests so far.
func (r *Run) Report() Report {
	report := r.tally.snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	report.Sessions = len(r.sessions)
	return report
}

// Stop ends the offer and waits for what is in flight. Each request has a time limit.
func (r *Run) Stop() Report {
	r.stop()
	r.offering.Wait()
	r.inFlight.Wait()
	for _, s := range r.sessions {
		s.close()
	}
	return r.Report()
}

// errOver is why a wait for the schedule ended.
var errOver = errors.New("the offer is over")

// offer calls send for each request when it is due, so many in a second, until ctx ends.
// After a standstill it makes up for what it has missed, at once.
func offer(ctx context.Context, perSecond int, send func(i int, due time.Time)) {
	if perSecond == 0 {
		return
	}
	began := time.Now()
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		if waitUntil(ctx, due) != nil {
			return
		}
		send(i, due)
	}
}

func waitUntil(ctx context.Context, due time.Time) error {
	if ctx.Err() != nil {
		return errOver
	}
	rest := time.Until(due)
	if rest <= 0 {
		return nil
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errOver
	}
}
