// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/session"
)

// feedPage is how many revocations one statement reads.
const feedPage = 1000

// revocation is one of a policy's, as it is sent.
type revocation struct {
	number          int64
	id              session.ID
	at, forgetAfter time.Time
}

// feed has the revocations of a policy that matter, for all streams of a store. It
// reads them from the database when it is woken.
type feed struct {
	store *Store
	wake  chan struct{}

	mu      sync.Mutex
	revoked []revocation // by number
	last    int64        // all up to it were read
	// era changes when the numbers began anew: the database was restored.
	era int
	// changed is closed and replaced when something was read.
	changed chan struct{}
	// waiting are closed after the next reading.
	waiting []chan struct{}
}

func newFeed(s *Store) *feed {
	return &feed{store: s, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// poke has the feed read, now or right after the reading that is under way.
func (f *feed) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// request returns what is closed when a reading that began after the call is done.
func (f *feed) request() <-chan struct{} {
	done := make(chan struct{})
	f.mu.Lock()
	f.waiting = append(f.waiting, done)
	f.mu.Unlock()
	f.poke()
	return done
}

func (f *feed) run() {
	s := f.store
	s.database.listener.add(f)
	defer s.database.listener.remove(f)
	for {
		select {
		case <-f.wake:
		case <-s.ctx.Done():
			return
		}
		f.mu.Lock()
		waiting := f.waiting
		f.waiting = nil
		f.mu.Unlock()
		wait, quiet := firstPause, false
		for {
			err := f.read(s.ctx)
			if err == nil {
				break
			}
			if s.ctx.Err() != nil {
				return
			}
			if !quiet {
				s.database.config.Log.Error(err, "cannot read revocations, trying again", "policy", s.policy)
				quiet = true
			}
			if sleep(s.ctx, around(wait)) != nil {
				return
			}
			wait = min(2*wait, lastPause)
		}
		for _, done := range waiting {
			close(done)
		}
	}
}

// read takes over what was revoked since the last time.
func (f *feed) read(ctx context.Context) error {
	for first := true; ; first = false {
		news, counter, err := f.query(ctx, first)
		if err != nil {
			return err
		}
		f.take(news, counter, len(news) < feedPage)
		if len(news) < feedPage {
			return nil
		}
	}
}

// query returns the next revocations, and the policy's last number as it was before:
// all up to that one are among them, unless they are too many or no longer matter.
// A first query looks whether the database has gone back.
func (f *feed) query(ctx context.Context, first bool) (news []revocation, counter int64, err error) {
	s := f.store
	err = s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		news, counter = nil, 0
		err := conn.QueryRow(ctx, "SELECT revocations FROM tokenward.policies WHERE policy = $1", string(s.policy)).Scan(&counter)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if first {
			f.rewind(counter)
		}
		rows, err := conn.Query(ctx, `SELECT id, revoked_at, forget_after, revocation FROM tokenward.sessions
			WHERE policy = $1 AND revocation > $2 AND forget_after > $3 ORDER BY revocation LIMIT $4`,
			string(s.policy), f.position(), s.now(), feedPage)
		if err != nil {
			return err
		}
		var r revocation
		_, err = pgx.ForEachRow(rows, []any{(*string)(&r.id), &r.at, &r.forgetAfter, &r.number}, func() error {
			news = append(news, revocation{number: r.number, id: r.id, at: r.at.UTC(), forgetAfter: r.forgetAfter.UTC()})
			return nil
		})
		return err
	})
	return news, counter, err
}

func (f *feed) position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// rewind begins anew where the database has gone back.
func (f *feed) rewind(counter int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if counter < f.last {
		f.last, f.revoked = 0, nil
		f.era++
	}
}

func (f *feed) take(news []revocation, counter int64, complete bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.store.now()
	f.revoked = append(slices.DeleteFunc(f.revoked, func(r revocation) bool { return !r.forgetAfter.After(now) }), news...)
	if len(news) > 0 {
		f.last = news[len(news)-1].number
	}
	if complete {
		f.last = max(f.last, counter)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// place is where a stream is.
type place struct {
	number int64
	era    int
}

// since returns what follows a place and matters at now, and a channel that is closed
// when there may be more. The place is moved to the beginning of a new era.
func (f *feed) since(p *place, now time.Time) ([]revocation, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.era != f.era {
		*p = place{era: f.era}
	}
	first, _ := slices.BinarySearchFunc(f.revoked, p.number+1, func(r revocation, n int64) int { return cmp.Compare(r.number, n) })
	var news []revocation
	for _, r := range f.revoked[first:] {
		if r.forgetAfter.After(now) {
			news = append(news, r)
		}
	}
	return news, f.changed
}

// enter is the place of a cursor. One from a future that never came begins anew:
// the database was restored, or somebody made the cursor up.
func (f *feed) enter(number int64) place {
	f.mu.Lock()
	defer f.mu.Unlock()
	if number > f.last {
		number = 0
	}
	return place{number: number, era: f.era}
}

// Revocations is [session.Store.Revocations].
func (s *Store) Revocations(ctx context.Context, since session.Cursor) (<-chan session.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, errClosed
	}
	s.start.Do(func() { s.tasks.Go(s.feed.run) })
	events := make(chan session.Event)
	// The goroutine ends with ctx or the store; Close need not wait for it.
	go s.stream(ctx, parseCursor(since), events)
	return events, nil
}

func (s *Store) stream(ctx context.Context, number int64, events chan<- session.Event) {
	defer close(events)
	select {
	case <-s.feed.request():
	case <-ctx.Done():
		return
	case <-s.ctx.Done():
		return
	}
	at := s.feed.enter(number)
	send := func(e session.Event) bool {
		e.Cursor = cursor(at.number)
		select {
		case events <- e:
			return true
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
		return false
	}
	for synced := false; ; synced = true {
		news, changed := s.feed.since(&at, s.now())
		for _, r := range news {
			at.number = r.number
			if !send(session.Event{ID: r.id, At: r.at, ForgetAfter: r.forgetAfter}) {
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

// cursorPrefix tells this form of cursor from later ones.
const cursorPrefix = "1."

func cursor(number int64) session.Cursor {
	return session.Cursor(cursorPrefix + strconv.FormatInt(number, 36))
}

// parseCursor takes everything for the beginning that is no cursor.
func parseCursor(c session.Cursor) int64 {
	rest, ok := strings.CutPrefix(string(c), cursorPrefix)
	number, err := strconv.ParseInt(rest, 36, 64)
	if !ok || err != nil || number < 0 {
		return 0
	}
	return number
}
