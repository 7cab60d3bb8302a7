// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tokenward/tokenward/internal/session"
)

const (
	// waitAtStream is how long Redis keeps a reader waiting before it says that there
	// is nothing. The place in the stream is checked this often.
	waitAtStream = time.Second
	// readAtOnce is how many entries one answer has at most.
	readAtOnce = 1000
	// firstPause and longestPause are between attempts to reach a server that is away.
	firstPause, longestPause = 50 * time.Millisecond, 2 * time.Second
)

// Revocations is [session.Store.Revocations]. Everything that was revoked before the
// call, at any instance, comes before the synced event; an error is that Redis could
// not be asked for it.
func (s *Store) Revocations(ctx context.Context, since session.Cursor) (<-chan session.Event, error) {
	_, err := do(ctx, s, "read revocations", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.pull(ctx)
	})
	if err != nil {
		return nil, err
	}
	if !s.begin() {
		return nil, errClosed
	}
	events := make(chan session.Event)
	go func() {
		defer s.running.Done()
		defer close(events)
		s.send(ctx, s.feed.reader(since), events)
	}()
	return events, nil
}

func (s *Store) send(ctx context.Context, at reader, events chan<- session.Event) {
	cursor := session.Cursor(at.last.String())
	deliver := func(e session.Event) bool {
		cursor = e.Cursor
		select {
		case events <- e:
			return true
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
		return false
	}
	for synced := false; ; synced = true {
		news, changed := s.feed.since(&at, s.options.Now())
		for _, r := range news {
			if !deliver(r.event()) {
				return
			}
		}
		if !synced && !deliver(session.Event{Synced: true, Cursor: cursor}) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// follow keeps the feed up with the stream until the store is closed.
func (s *Store) follow() {
	pause := firstPause
	for s.ctx.Err() == nil {
		err := s.await()
		if err == nil {
			err = s.limited(s.pull)
		}
		if err == nil {
			pause = firstPause
			continue
		}
		// Whoever needs the feed now is told by Revocations; Check tells why.
		timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // not all issuers at once when it comes back
		select {
		case <-timer.C:
		case <-s.ctx.Done():
		}
		timer.Stop()
		pause = min(2*pause, longestPause)
	}
}

func (s *Store) limited(operation func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.options.Timeout)
	defer cancel()
	return operation(ctx)
}

// await returns when there is something after our place, or after waitAtStream. What
// it is told it leaves to pull, which sees whether our place is still there.
func (s *Store) await() error {
	ctx, cancel := context.WithTimeout(s.ctx, waitAtStream+s.options.Timeout)
	defer cancel()
	err := s.client.XRead(ctx, &goredis.XReadArgs{
		Streams: []string{s.stream(), s.feed.position().String()}, Count: 1, Block: waitAtStream,
	}).Err()
	if errors.Is(err, goredis.Nil) {
		return nil
	}
	return err
}

// pull reads the stream to its present end.
func (s *Store) pull(ctx context.Context) error {
	select {
	case s.feed.reading <- struct{}{}:
		defer func() { <-s.feed.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	news, gone, err := s.readStream(ctx, s.feed.position())
	if err != nil {
		return err
	}
	if gone {
		s.feed.restart(news, s.options.Now())
	} else {
		s.feed.add(news, s.options.Now())
	}
	return s.restore(ctx)
}

// restore revokes again what the server has lost. What fails is tried at the next pull.
func (s *Store) restore(ctx context.Context) error {
	for {
		r, found := s.feed.nextLost()
		if !found {
			return nil
		}
		if r.matters(s.options.Now()) {
			_, err := s.revoke(ctx, r.id, session.Revocation{At: r.at, Reason: r.reason}, r.forgetAfter.Add(-session.MaxLeeway), true)
			if err != nil && !errors.Is(err, session.ErrNotFound) && !errors.Is(err, errNewer) {
				return fmt.Errorf("revoke again what the server has lost: %w", err)
			}
		}
		s.feed.dropLost()
	}
}

// readStream returns the entries after the place; all, when gone is set because the
// stream does not have it any more.
func (s *Store) readStream(ctx context.Context, after place) (entries []revocation, gone bool, _ error) {
	for {
		answer, err := s.scripts.read.Run(ctx, s.client, []string{s.stream()}, after.String(), readAtOnce).Slice()
		if err != nil {
			return nil, false, err
		}
		if len(answer) != 2 {
			return nil, false, errors.New("the stream was answered in an unknown form")
		}
		batch, _ := answer[1].([]any)
		if answer[0] == int64(1) {
			gone, entries = true, nil
		}
		for _, entry := range batch {
			r, err := parseRevocation(entry)
			if err != nil {
				return nil, false, fmt.Errorf("read %q: %w", s.stream(), err)
			}
			entries = append(entries, r)
			after = r.place
		}
		if len(batch) < readAtOnce {
			return entries, gone, nil
		}
	}
}
