// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// Store is one instance. Its errors, but for those of [session.Store] and the
// context's, are [*Error].
type Store struct {
	options Options
	client  goredis.UniversalClient
	scripts scripts
	feed    *feed

	ctx  context.Context //nolint:containedctx // ends with the store
	stop context.CancelFunc
	// running are the operations and the feed; each has a time limit.
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
	// trimming is held while the index is cleaned.
	trimming sync.Mutex
}

var (
	_ session.Store   = (*Store)(nil)
	_ session.Revoker = (*Store)(nil)
)

// New opens the sessions of a policy. It does not wait for Redis: a server that is
// down when the program starts is an outage like any other, see [Store.Check]. An
// error is a mistake in the options.
func New(options Options) (*Store, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	// The client would write what servers say, passwords they repeat included, to the
	// standard error. All of it comes back as errors as well.
	goredis.SetLogger(&logging.VoidLogger{})
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{options: options, client: options.client(), scripts: newScripts(), feed: newFeed(), ctx: ctx, stop: stop}
	s.running.Go(s.follow)
	return s, nil
}

// Close ends the instance and its streams. The sessions stay.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	err := s.client.Close()
	s.running.Wait()
	if err != nil && !errors.Is(err, goredis.ErrClosed) {
		return s.explain(err)
	}
	return nil
}

func (s *Store) key(id session.ID) string { return s.scope() + "s:" + string(id) }
func (s *Store) stream() string           { return s.scope() + "revoked" }
func (s *Store) index() string            { return s.scope() + "ids" }
func (s *Store) scope() string            { return s.options.Prefix + "{" + string(s.options.Policy) + "}:" }

// begin counts an operation, unless the store is closed.
func (s *Store) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Add(1)
	}
	return !s.closed
}

// do runs an operation within the store's time limit. The client watches a context
// only between commands, so the operation has a goroutine of its own: when the
// caller's context ends, the caller leaves.
func do[T any](ctx context.Context, s *Store, what string, operation func(context.Context) (T, error)) (T, error) {
	var nothing T
	if err := ctx.Err(); err != nil {
		return nothing, err
	}
	if !s.begin() {
		return nothing, errClosed
	}
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		defer s.running.Done()
		limited, cancel := context.WithTimeout(ctx, s.options.Timeout)
		defer cancel()
		value, err := operation(limited)
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		switch {
		case o.err == nil, errors.Is(o.err, session.ErrNotFound), errors.Is(o.err, session.ErrExists),
			errors.Is(o.err, session.ErrStale), errors.Is(o.err, session.ErrFull):
			return o.value, o.err
		case ctx.Err() != nil:
			return nothing, ctx.Err()
		case s.ctx.Err() != nil:
			return nothing, errClosed
		}
		return nothing, fmt.Errorf("%s: %w", what, s.explain(o.err))
	case <-ctx.Done():
		return nothing, ctx.Err()
	case <-s.ctx.Done():
		return nothing, errClosed
	}
}

// newVersion names one write. It is random, so that a repeated command knows its own
// write, and two servers that went apart never come to the same name.
func newVersion() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (s *Store) mine(what string, policy session.PolicyID) error {
	if policy != s.options.Policy {
		return fmt.Errorf("%s: it is of policy %q, the store of %q", what, policy, s.options.Policy)
	}
	return nil
}

// timeToLive is relative, so that it does not matter what time the server has.
func (s *Store) timeToLive(next session.Session) int64 { return s.until(next.KeepUntil()) }

// longestLife is the time to live of a session that is refreshed to its end, which no
// refresh moves.
func (s *Store) longestLife(created session.Session) int64 {
	return max(s.timeToLive(created), s.until(created.ExpiresAt.Add(session.MaxLeeway)))
}

func (s *Store) until(end time.Time) int64 {
	return max(end.Sub(s.options.Now())+time.Second, time.Second).Milliseconds()
}

// Create is [session.Store.Create].
func (s *Store) Create(ctx context.Context, created session.Session) error {
	if err := s.mine("create session", created.Policy); err != nil {
		return err
	}
	version := newVersion()
	record, err := encode(created, version)
	if err != nil {
		return err
	}
	_, err = do(ctx, s, "create session", func(ctx context.Context) (struct{}, error) {
		answer, err := s.scripts.create.Run(ctx, s.client, []string{s.key(created.ID), s.index()},
			version, record, s.timeToLive(created), string(created.ID), s.longestLife(created)).Text()
		switch {
		case outOfMemory(err):
			return struct{}{}, session.ErrFull
		case err == nil && answer == "exists":
			return struct{}{}, session.ErrExists
		}
		return struct{}{}, err
	})
	if err == nil {
		s.trimNowAndThen(created.ID) //nolint:contextcheck // does not end with the login
	}
	return err
}

// Load is [session.Store.Load].
func (s *Store) Load(ctx context.Context, id session.ID) (session.Session, error) {
	return do(ctx, s, "load session", func(ctx context.Context) (session.Session, error) {
		// GET says with an error that there is nothing, and the client uses the same one
		// when a Sentinel does not know the primary. That must not log anybody out.
		values, err := s.client.MGet(ctx, s.key(id)).Result()
		if err != nil {
			return session.Session{}, err
		}
		if len(values) != 1 {
			return session.Session{}, fmt.Errorf("one key was asked for, %d were answered", len(values))
		}
		raw, there := values[0].(string)
		if !there {
			return session.Session{}, session.ErrNotFound
		}
		found, err := s.decode(id, raw)
		if err == nil && s.options.Now().After(found.KeepUntil()) {
			return session.Session{}, session.ErrNotFound // and Redis is about to forget it
		}
		return found, err
	})
}

// decode takes what nobody of ours has written for no session: to try again would
// not help its owner.
func (s *Store) decode(id session.ID, raw string) (session.Session, error) {
	found, err := decode(s.options.Policy, id, raw)
	if errors.Is(err, errBroken) {
		return session.Session{}, session.ErrNotFound
	}
	return found, err
}

// Swap is [session.Store.Swap]. It never returns [session.ErrFull].
func (s *Store) Swap(ctx context.Context, next session.Session) (session.Session, error) {
	if err := s.mine("swap session", next.Policy); err != nil {
		return session.Session{}, err
	}
	if next.Revoked != nil {
		return do(ctx, s, "revoke session", func(ctx context.Context) (session.Session, error) {
			return s.revoke(ctx, next.ID, *next.Revoked, next.TokensUntil, false)
		})
	}
	rest, err := encodeRest(next)
	if err != nil {
		return session.Session{}, err
	}
	version := newVersion()
	return do(ctx, s, "swap session", func(ctx context.Context) (session.Session, error) {
		answer, err := s.scripts.swap.Run(ctx, s.client, []string{s.key(next.ID)},
			recordFormat, s.options.Now().Unix(), next.Version, version,
			next.KeepUntil().Unix(), next.ForgetAfter().Unix(), rest, s.timeToLive(next)).StringSlice()
		switch {
		case err != nil:
			return session.Session{}, err
		case len(answer) == 2 && answer[0] == "swapped":
			created, err := strconv.ParseInt(answer[1], 10, 64)
			next.Version, next.CreatedAt = version, fromUnix(created)
			return next, err
		case len(answer) == 2 && answer[0] == "stale":
			stored, err := s.decode(next.ID, answer[1])
			if err == nil {
				err = session.ErrStale
			}
			return stored, err
		}
		return session.Session{}, refused(answer)
	})
}

// revoke ends a session, with tokens that may live until that time, also where the server
// does not know of them; again is set when the stream may have lost that it ended.
func (s *Store) revoke(ctx context.Context, id session.ID, revocation session.Revocation, tokensUntil time.Time, again bool) (session.Session, error) {
	keys, arguments := s.revocation(id, revocation, newVersion(), tokensUntil, again)
	answer, err := s.scripts.revoke.Run(ctx, s.client, keys, arguments...).StringSlice()
	if err != nil {
		return session.Session{}, err
	}
	if len(answer) == 2 && answer[0] == "revoked" {
		return s.decode(id, answer[1])
	}
	return session.Session{}, refused(answer)
}

// revocation is what the script revoke is called with.
func (s *Store) revocation(id session.ID, r session.Revocation, version string, tokensUntil time.Time, again bool) (keys []string, arguments []any) {
	now, forgetAfter := s.options.Now(), int64(0)
	if !tokensUntil.IsZero() {
		forgetAfter = tokensUntil.Add(session.MaxLeeway).Unix()
	}
	return []string{s.key(id), s.stream()}, []any{
		recordFormat, now.Unix(), version, unix(r.At), reason(r.Reason), string(id),
		now.Add(-session.MaxLeeway).Unix(), again, forgetAfter,
	}
}

// reason is one word in a record's header.
func reason(r token.Reason) string {
	if r == "" {
		return none
	}
	return string(r)
}

// refused is the error for the answers that swap and revoke have in common.
func refused(answer []string) error {
	switch {
	case len(answer) == 1 && answer[0] == "none":
		return session.ErrNotFound
	case len(answer) == 1 && answer[0] == "newer":
		return errNewer
	}
	return &Error{Problem: ProblemOther, text: "a script gave an answer that it does not have"}
}
