// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tokenward/tokenward/internal/session"
)

const (
	// channel of the notifications, whose payload is the policy.
	channel = "tokenward_revocations"
	// The pauses between attempts to listen, and to read after one that failed.
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
	// pollTimeout is how soon a connection on which nothing comes any more is given up.
	pollTimeout = 2 * time.Second
)

// listener has the one connection of a process that listens, and wakes the feeds.
type listener struct {
	database  *Database
	config    *pgx.ConnConfig
	connected atomic.Bool

	mu      sync.Mutex
	started bool
	feeds   map[*feed]struct{}
}

func listening(config *pgx.ConnConfig) *pgx.ConnConfig {
	config = config.Copy()
	config.RuntimeParams["application_name"] = "tokenward-revocations"
	return config
}

// add has the feed woken from now on. The first one starts the listening.
func (l *listener) add(f *feed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.feeds[f] = struct{}{}
	if !l.started && l.database.ctx.Err() == nil {
		l.started = true
		l.database.tasks.Go(l.run)
	}
}

func (l *listener) remove(f *feed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.feeds, f)
}

// wake the feeds of the policies that are chosen.
func (l *listener) wake(chosen func(session.PolicyID) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.feeds {
		if chosen(f.store.policy) {
			f.poke()
		}
	}
}

func (l *listener) run() {
	d := l.database
	wait, quiet := firstPause, false
	for {
		err := l.listen(d.ctx, func() { wait, quiet = firstPause, false })
		l.connected.Store(false)
		if d.ctx.Err() != nil {
			return
		}
		if !quiet {
			d.config.Log.Error(classify(err), "cannot listen for revocations, trying again")
			quiet = true // until it has worked again
		}
		if sleep(d.ctx, around(wait)) != nil {
			return
		}
		wait = min(2*wait, lastPause)
	}
}

// listen until the connection breaks.
func (l *listener) listen(ctx context.Context, succeeded func()) error {
	conn, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pollTimeout)
		defer cancel()
		_ = conn.Close(ctx) // it is given up anyway
	}()
	if err := within(ctx, func(ctx context.Context) error {
		_, err := conn.Exec(ctx, "LISTEN "+channel)
		return err
	}); err != nil {
		return err
	}
	l.connected.Store(true)
	succeeded()
	// Whatever was revoked while nobody listened.
	l.wake(func(session.PolicyID) bool { return true })
	known := map[session.PolicyID]int64{}
	for {
		policy, err := await(ctx, conn, l.database.config.PollInterval)
		switch {
		case err != nil:
			return err
		case policy != "":
			l.wake(func(p session.PolicyID) bool { return p == policy })
			continue
		}
		if err := l.poll(ctx, conn, known); err != nil {
			return err
		}
	}
}

// await waits for a notification, and returns no policy when none has come.
func await(ctx context.Context, conn *pgx.Conn, most time.Duration) (session.PolicyID, error) {
	waiting, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	n, err := conn.WaitForNotification(waiting)
	switch {
	case err == nil:
		return session.PolicyID(n.Payload), nil
	case ctx.Err() == nil && pgconn.Timeout(err) && !conn.IsClosed():
		return "", nil
	}
	return "", err
}

// poll looks for policies with revocations that no notification told of, because a
// proxy between us and the server has lost it. It also finds out whether the
// connection still leads anywhere.
func (l *listener) poll(ctx context.Context, conn *pgx.Conn, known map[session.PolicyID]int64) error {
	return within(ctx, func(ctx context.Context) error {
		rows, err := conn.Query(ctx, "SELECT policy, revocations FROM tokenward.policies")
		if err != nil {
			return err
		}
		var policy session.PolicyID
		var number int64
		changed := map[session.PolicyID]bool{}
		if _, err := pgx.ForEachRow(rows, []any{(*string)(&policy), &number}, func() error {
			changed[policy] = known[policy] != number
			known[policy] = number
			return nil
		}); err != nil {
			return err
		}
		l.wake(func(p session.PolicyID) bool { return changed[p] })
		return nil
	})
}

func within(ctx context.Context, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	return work(ctx)
}
