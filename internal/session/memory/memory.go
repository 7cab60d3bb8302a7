// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package memory keeps sessions, and counts attempts, in the memory of one process: for
// tests and for local development. They are gone when it ends.
package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
)

// errClosed is an outage to the caller: the policy's store was torn down.
var errClosed = errors.New("session store is closed")

// Options of a store; the zero value is good.
type Options struct {
	// Backing is what several instances share; nil is one of its own.
	Backing *Backing
	// MaxSessions is when Create returns [session.ErrFull]; 0 is no limit.
	MaxSessions int
	// Now is time.Now when nil.
	Now func() time.Time
}

// Backing holds the sessions of any number of policies.
type Backing struct {
	mu       sync.Mutex
	policies map[session.PolicyID]*sessions
}

// NewBacking returns an empty one.
func NewBacking() *Backing { return &Backing{policies: map[session.PolicyID]*sessions{}} }

func (b *Backing) policy(id session.PolicyID) *sessions {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.policies[id]
	if s == nil {
		s = &sessions{byID: map[session.ID]stored{}, whole: map[attempts.Key]time.Time{}, changed: make(chan struct{})}
		b.policies[id] = s
	}
	return s
}

// sessions of one policy, and the attempts that are counted for it.
type sessions struct {
	mu   sync.Mutex
	byID map[session.ID]stored
	// whole is when the allowance of a key is whole again.
	whole map[attempts.Key]time.Time
	seq   int64 // of the last write; versions and cursors are taken from it
	// changed is closed and replaced at each revocation.
	changed chan struct{}
}

type stored struct {
	session.Session
	revokedSeq int64
}

// Store is one instance.
type Store struct {
	policy session.PolicyID
	max    int
	now    func() time.Time
	data   *sessions
	closed chan struct{}
	once   sync.Once
}

var (
	_ session.Store    = (*Store)(nil)
	_ attempts.Counter = (*Store)(nil)
)

// New opens the sessions of a policy.
func New(policy session.PolicyID, options Options) *Store {
	if options.Backing == nil {
		options.Backing = NewBacking()
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	return &Store{
		policy: policy, max: options.MaxSessions, now: options.Now,
		data: options.Backing.policy(policy), closed: make(chan struct{}),
	}
}

// Close ends the instance and its streams; the backing stays.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *Store) ready(ctx context.Context) error {
	select {
	case <-s.closed:
		return errClosed
	default:
		return ctx.Err()
	}
}

// Create is [session.Store.Create].
func (s *Store) Create(ctx context.Context, created session.Session) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if created.Policy != s.policy {
		return fmt.Errorf("create session: it is of policy %q, the store of %q", created.Policy, s.policy)
	}
	d := s.data
	d.mu.Lock()
	defer d.mu.Unlock()
	d.collect(s.now())
	if _, exists := d.byID[created.ID]; exists {
		return session.ErrExists
	}
	if s.max > 0 && len(d.byID) >= s.max {
		return session.ErrFull
	}
	d.put(created)
	return nil
}

// Load is [session.Store.Load].
func (s *Store) Load(ctx context.Context, id session.ID) (session.Session, error) {
	if err := s.ready(ctx); err != nil {
		return session.Session{}, err
	}
	d := s.data
	d.mu.Lock()
	defer d.mu.Unlock()
	found, ok := d.find(id, s.now())
	if !ok {
		return session.Session{}, session.ErrNotFound
	}
	return found.Session, nil
}

// Swap is [session.Store.Swap].
func (s *Store) Swap(ctx context.Context, next session.Session) (session.Session, error) {
	if err := s.ready(ctx); err != nil {
		return session.Session{}, err
	}
	if next.Policy != s.policy {
		return session.Session{}, fmt.Errorf("swap session: it is of policy %q, the store of %q", next.Policy, s.policy)
	}
	d := s.data
	d.mu.Lock()
	defer d.mu.Unlock()
	found, ok := d.find(next.ID, s.now())
	switch {
	case !ok:
		return session.Session{}, session.ErrNotFound
	case found.Revoked != nil && next.Revoked != nil:
		return found.Session, nil
	case next.Revoked != nil:
		return d.put(found.RevokedLike(next)), nil
	case found.Revoked != nil, found.Version != next.Version:
		return found.Session, session.ErrStale
	}
	next.CreatedAt = found.CreatedAt
	return d.put(next), nil
}

// RevokeWhere is [session.Revoker.RevokeWhere].
func (s *Store) RevokeWhere(ctx context.Context, which session.Selection, as session.Revocation) (revoked int, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	d := s.data
	d.mu.Lock()
	defer d.mu.Unlock()
	d.collect(s.now())
	for _, found := range d.byID {
		if found.Revoked == nil && which.Includes(found.Session) {
			d.put(found.Revoke(as.Reason, as.At))
			revoked++
		}
	}
	return revoked, nil
}

// put stores s under a new version.
func (d *sessions) put(s session.Session) session.Session {
	d.seq++
	s.Version = strconv.FormatInt(d.seq, 10)
	entry := stored{Session: s}
	if s.Revoked != nil {
		entry.revokedSeq = d.seq
		close(d.changed)
		d.changed = make(chan struct{})
	}
	d.byID[s.ID] = entry
	return s
}

// find returns a session that is not dead.
func (d *sessions) find(id session.ID, now time.Time) (stored, bool) {
	found, ok := d.byID[id]
	return found, ok && !now.After(found.KeepUntil())
}

// collect removes the dead. Only what adds or goes over all of them does it.
func (d *sessions) collect(now time.Time) {
	for id, s := range d.byID {
		if now.After(s.KeepUntil()) {
			delete(d.byID, id)
		}
	}
}

// Revocations is [session.Store.Revocations].
func (s *Store) Revocations(ctx context.Context, since session.Cursor) (<-chan session.Event, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	// What is not a number is not understood, and 0 is everything.
	seq, err := strconv.ParseInt(string(since), 10, 64)
	if err != nil {
		seq = 0
	}
	events := make(chan session.Event)
	go s.stream(ctx, seq, events)
	return events, nil
}

func (s *Store) stream(ctx context.Context, seq int64, events chan<- session.Event) {
	defer close(events)
	send := func(e session.Event) bool {
		e.Cursor = session.Cursor(strconv.FormatInt(seq, 10))
		select {
		case events <- e:
			return true
		case <-ctx.Done():
		case <-s.closed:
		}
		return false
	}
	for synced := false; ; synced = true {
		news, changed := s.data.revokedSince(seq, s.now())
		for _, r := range news {
			seq = r.revokedSeq
			if !send(session.Event{ID: r.ID, At: r.Revoked.At, ForgetAfter: r.ForgetAfter()}) {
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
		case <-s.closed:
			return
		}
	}
}

// revokedSince returns the revocations after seq that still matter, oldest first, and
// a channel that is closed at the next one.
func (d *sessions) revokedSince(seq int64, now time.Time) ([]stored, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if seq > d.seq {
		seq = 0 // a cursor from before the process was restarted
	}
	var news []stored
	for _, s := range d.byID {
		if s.Revoked != nil && s.revokedSeq > seq && s.ForgetAfter().After(now) {
			news = append(news, s)
		}
	}
	slices.SortFunc(news, func(a, b stored) int { return cmp.Compare(a.revokedSeq, b.revokedSeq) })
	return news, d.changed
}
