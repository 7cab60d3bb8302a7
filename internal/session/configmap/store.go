// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
)

// errClosed is an outage to the caller: the policy's store was torn down.
var errClosed = errors.New("session store is closed")

// Store is one instance of a policy's store.
type Store struct {
	config Config
	// instance names this one in the shards it writes.
	instance string
	readers  []*shardReader
	writers  []*shardWriter
	reads    chan struct{} // a place for each read under way
	readPace *pace
	pace     *pace // of the writes
	quota    *quota
	feed     *feed
	stats    stats
	// unreadable records of each shard, by data key; see reportUnreadable.
	unreadable []map[string]string

	ctx   context.Context //nolint:containedctx // the life of the store's own goroutines
	stop  context.CancelFunc
	tasks sync.WaitGroup
}

var (
	_ session.Store    = (*Store)(nil)
	_ attempts.Counter = (*Store)(nil)
)

type stats struct {
	reads, writes, conflicts, unreadable atomic.Int64
}

// Stats are figures for metrics.
type Stats struct {
	// Reads and Writes were requested of the API server; Conflicts of the writes came
	// too late and were made anew.
	Reads, Writes, Conflicts int64
	// Unreadable records are in the shards now: tampered with, sealed with a key that
	// is not in the Secret, or of a newer release.
	Unreadable int64
	// Sessions are in the shards now, as far as this instance knows.
	Sessions int
}

// New opens the store of a policy. It makes no request itself, and needs no shard to
// exist. [Store.Close] ends what it starts.
func New(config Config) (*Store, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	s := &Store{
		config:   config,
		instance: string(session.NewID()),
		reads:    make(chan struct{}, concurrentReads),
		pace:     newPace(config.WritesPerSecond, writeBurst),
		readPace: newPace(readsPerSecond, readBurst),
		feed:     newFeed(config.Shards),

		unreadable: make([]map[string]string, config.Shards+1),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.quota = newQuota(config.MaxSessions, config.Shards+1, config.Now, func(shard int, now time.Time) int { return s.readers[shard].live(now) })
	for shard := range config.Shards + 1 {
		r := &shardReader{store: s, shard: shard, wake: make(chan struct{}, 1)}
		w := &shardWriter{store: s, shard: shard, reader: r, wake: make(chan struct{}, 1)}
		if shard == s.attemptsShard() {
			w.pace = newPace(config.WritesPerSecond*attemptsShare, attemptsBurst)
		}
		s.readers, s.writers = append(s.readers, r), append(s.writers, w)
		s.tasks.Go(r.run)
		s.tasks.Go(w.run)
	}
	s.tasks.Go(s.watch)
	s.tasks.Go(s.sweepNowAndThen)
	return s, nil
}

// Close ends the streams and refuses all that is not done yet, as an outage. What is
// being written may still be made.
func (s *Store) Close() error {
	s.stop()
	s.tasks.Wait()
	return nil
}

// Stats returns figures for metrics.
func (s *Store) Stats() Stats {
	return Stats{
		Reads: s.stats.reads.Load(), Writes: s.stats.writes.Load(), Conflicts: s.stats.conflicts.Load(),
		Unreadable: s.stats.unreadable.Load(), Sessions: s.quota.sessions(),
	}
}

// Create is [session.Store.Create]. The first one waits until the shards are counted.
func (s *Store) Create(ctx context.Context, created session.Session) error {
	if created.Policy != s.config.Policy {
		return fmt.Errorf("create session: it is of policy %q, the store of %q", created.Policy, s.config.Policy)
	}
	if err := s.awaitSync(ctx); err != nil {
		return err
	}
	return s.do(ctx, s.operation(create, created)).err
}

// Load is [session.Store.Load].
func (s *Store) Load(ctx context.Context, id session.ID) (session.Session, error) {
	if err := ctx.Err(); err != nil {
		return session.Session{}, err
	}
	at := locate(s.config.Policy, s.config.Shards, id)
	c, err := s.readers[at.shard].read(ctx)
	if err != nil {
		return session.Session{}, err
	}
	r, err := c.find(at.key, s.config.Now())
	if err != nil {
		return session.Session{}, err
	}
	return r.Session, nil
}

// Swap is [session.Store.Swap].
func (s *Store) Swap(ctx context.Context, next session.Session) (session.Session, error) {
	if next.Policy != s.config.Policy {
		return session.Session{}, fmt.Errorf("swap session: it is of policy %q, the store of %q", next.Policy, s.config.Policy)
	}
	r := s.do(ctx, s.operation(swap, next))
	return r.session, r.err
}

func (s *Store) operation(kind kind, next session.Session) *operation {
	return &operation{kind: kind, at: locate(s.config.Policy, s.config.Shards, next.ID), next: next, version: newVersion()}
}

// Revocations is [session.Store.Revocations].
func (s *Store) Revocations(ctx context.Context, since session.Cursor) (<-chan session.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, errClosed
	}
	events := make(chan session.Event)
	// The goroutine ends with ctx or the store; Close need not wait for it.
	go s.stream(ctx, parseCursor(since, s.config.Shards), events)
	return events, nil
}

func (s *Store) stream(ctx context.Context, from vector, events chan<- session.Event) {
	defer close(events)
	if s.awaitSync(ctx) != nil {
		return
	}
	s.feed.rewind(from, s.config.Now())
	send := func(e session.Event) bool {
		e.Cursor = from.cursor()
		select {
		case events <- e:
			return true
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
		return false
	}
	for synced := false; ; synced = true {
		news, changed := s.feed.since(from, s.config.Now())
		for _, r := range news {
			from[r.shard] = r.record.sequence
			if !send(session.Event{ID: r.record.ID, At: r.record.Revoked.At, ForgetAfter: r.record.ForgetAfter()}) {
				return
			}
		}
		if !synced && !send(session.Event{Synced: true}) {
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

func (s *Store) awaitSync(ctx context.Context) error {
	select {
	case <-s.feed.synced:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return errClosed
	}
}

// Sweep removes the dead sessions, and the attempts that count no more, of every shard
// that has any. A shard that is written loses them anyway.
func (s *Store) Sweep(ctx context.Context) error {
	var failed []error
	for shard, r := range s.readers {
		if !r.dirty(s.config.Now()) {
			continue
		}
		if err := s.do(ctx, &operation{kind: collect, at: place{shard: shard}}).err; err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// sweepNowAndThen sweeps at times that differ from one instance to the next.
func (s *Store) sweepNowAndThen() {
	every := s.config.SweepInterval
	if every < 0 {
		return
	}
	for sleep(s.ctx, every/2+rand.N(every)) == nil { //nolint:gosec // spreads work, hides nothing
		if err := s.Sweep(s.ctx); err != nil && s.ctx.Err() == nil {
			s.config.Log.Error(err, "cannot remove dead sessions", "policy", s.config.Policy)
		}
	}
}
