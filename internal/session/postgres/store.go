// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/session"
)

// StoreOptions of one policy's store; the zero value is good.
type StoreOptions struct {
	// MaxSessions is how many live sessions there may be; Create returns
	// [session.ErrFull] beyond it. 0 is no limit. Issuers that fill the last places in the
	// same moment, or within ten seconds without reaching them, may exceed it a little.
	MaxSessions int
	// Now is that of the database's [Config] when nil.
	Now func() time.Time
}

// Store is one policy's sessions in a database. There may be several of one policy.
type Store struct {
	database *Database
	policy   session.PolicyID
	now      func() time.Time
	quota    *quota // nil without a limit
	feed     *feed

	ctx   context.Context //nolint:containedctx // the life of the store's own goroutines
	stop  context.CancelFunc
	start sync.Once // of the feed
	tasks sync.WaitGroup
}

var (
	_ session.Store   = (*Store)(nil)
	_ session.Revoker = (*Store)(nil)
)

// Store opens the sessions of a policy. It makes no request itself. [Store.Close] ends
// it; so does the end of the database.
func (d *Database) Store(policy session.PolicyID, options StoreOptions) *Store {
	if options.Now == nil {
		options.Now = d.config.Now
	}
	s := &Store{database: d, policy: policy, now: options.Now}
	s.ctx, s.stop = context.WithCancel(d.ctx)
	s.feed = newFeed(s)
	if options.MaxSessions > 0 {
		s.quota = &quota{max: options.MaxSessions, now: options.Now, count: s.count}
	}
	return s
}

// Close ends the streams and refuses further calls. The database stays open.
func (s *Store) Close() error {
	s.stop()
	s.start.Do(func() {}) // no feed begins any more
	s.tasks.Wait()
	return nil
}

// do is [Database.do] while the store is open.
func (s *Store) do(ctx context.Context, work func(context.Context, *pgx.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		return errClosed
	}
	return s.database.do(ctx, work)
}

const createStatement = `INSERT INTO tokenward.sessions (policy, id, version, prior, subject, generation,
	current_id, current_issued_at, current_expires_at, current_key_id, current_claims,
	previous_id, previous_issued_at, previous_expires_at,
	rotated_at, created_at, last_refresh_at, idle_until, expires_at, tokens_until, keep_until, forget_after)
	VALUES ($1, $2, $3, '', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
	ON CONFLICT (policy, id) DO NOTHING`

// Create is [session.Store.Create].
func (s *Store) Create(ctx context.Context, created session.Session) error {
	if created.Policy != s.policy {
		return fmt.Errorf("create session: it is of policy %q, the store of %q", created.Policy, s.policy)
	}
	if s.quota != nil {
		if err := s.quota.admit(ctx); err != nil {
			return err
		}
	}
	exists := false
	version := newVersion()
	err := s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		exists = false
		c := created
		tag, err := conn.Exec(ctx, createStatement, string(s.policy), string(c.ID), version, c.Subject, c.Generation,
			c.Current.ID, when(c.Current.IssuedAt), when(c.Current.ExpiresAt), c.Current.KeyID, claims(c.Current),
			c.Previous.ID, when(c.Previous.IssuedAt), when(c.Previous.ExpiresAt),
			when(c.RotatedAt), when(c.CreatedAt), when(c.LastRefreshAt), when(c.IdleUntil), when(c.ExpiresAt), when(c.TokensUntil),
			c.KeepUntil(), c.ForgetAfter())
		if err != nil || tag.RowsAffected() > 0 {
			return err
		}
		var found loaded
		err = found.query(ctx, conn, s.policy, c.ID)
		exists = !found.landed(version)
		return err
	})
	if err == nil && exists {
		err = session.ErrExists
	}
	if s.quota != nil {
		s.quota.done(err == nil)
	}
	return err
}

// Load is [session.Store.Load].
func (s *Store) Load(ctx context.Context, id session.ID) (session.Session, error) {
	var found loaded
	err := s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return found.query(ctx, conn, s.policy, id) })
	switch {
	case err != nil:
		return session.Session{}, err
	case !found.alive(s.now()):
		return session.Session{}, session.ErrNotFound
	}
	return found.session(s.policy, id), nil
}

// swapStatement changes a live session of that version. Two of them wait for each
// other, and the second finds another version.
const swapStatement = `UPDATE tokenward.sessions SET version = $4, prior = version, subject = $5, generation = $6,
	current_id = $7, current_issued_at = $8, current_expires_at = $9, current_key_id = $10, current_claims = $11,
	previous_id = $12, previous_issued_at = $13, previous_expires_at = $14,
	rotated_at = $15, last_refresh_at = $16, idle_until = $17, expires_at = $18, tokens_until = $19,
	keep_until = $20, forget_after = $21
	WHERE policy = $1 AND id = $2 AND version = $3 AND revoked_at IS NULL AND keep_until >= $22
	RETURNING ` + columns

// revokeStatement revokes a live session of any version. Its parts are done in their
// order: the session's row is locked, then the policy's, from which the number is
// taken (see the package's documentation). Nothing locks them the other way round.
const revokeStatement = `WITH live AS (
		SELECT policy, id FROM tokenward.sessions
		WHERE policy = $1 AND id = $2 AND revoked_at IS NULL AND keep_until >= $6
		FOR UPDATE
	), numbered AS (
		INSERT INTO tokenward.policies AS counter (policy, revocations)
		SELECT policy, (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM live
		ON CONFLICT (policy) DO UPDATE SET revocations = greatest(counter.revocations + 1, excluded.revocations)
		RETURNING revocations, pg_notify('` + channel + `', policy) AS notified
	)
	UPDATE tokenward.sessions SET version = $3, prior = version, revoked_at = $4, revoked_reason = $5,
		revocation = numbered.revocations, current_claims = NULL, tokens_until = greatest(tokens_until, $7),
		forget_after = greatest(forget_after, $8), keep_until = greatest(forget_after, $8)
	FROM numbered
	WHERE policy = $1 AND id = $2
	RETURNING ` + columns

// errLost should not happen: neither could the session be changed nor does it say why.
var errLost = errors.New("the session was not changed, for no known reason")

// Swap is [session.Store.Swap].
func (s *Store) Swap(ctx context.Context, next session.Session) (session.Session, error) {
	if next.Policy != s.policy {
		return session.Session{}, fmt.Errorf("swap session: it is of policy %q, the store of %q", next.Policy, s.policy)
	}
	version := newVersion()
	var found loaded
	err := s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		found.record = record{}
		err := s.update(ctx, conn, next, version).Scan(found.fields()...)
		if errors.Is(err, pgx.ErrNoRows) {
			return found.query(ctx, conn, s.policy, next.ID)
		}
		return err
	})
	if err != nil {
		return session.Session{}, err
	}
	stored := found.session(s.policy, next.ID)
	switch {
	case found.version == nil:
		return session.Session{}, session.ErrNotFound
	case found.landed(version):
		return stored, nil
	case !found.alive(s.now()):
		return session.Session{}, session.ErrNotFound
	case next.Revoked == nil:
		return stored, session.ErrStale
	case stored.Revoked == nil:
		return session.Session{}, errLost
	}
	return stored, nil
}

func (s *Store) update(ctx context.Context, conn *pgx.Conn, n session.Session, version string) pgx.Row {
	if n.Revoked != nil {
		var forgetAfter *time.Time
		if !n.TokensUntil.IsZero() {
			forgetAfter = when(n.TokensUntil.Add(session.MaxLeeway))
		}
		return conn.QueryRow(ctx, revokeStatement, string(s.policy), string(n.ID), version, n.Revoked.At, string(n.Revoked.Reason), s.now(),
			when(n.TokensUntil), forgetAfter)
	}
	return conn.QueryRow(ctx, swapStatement, string(s.policy), string(n.ID), n.Version, version, n.Subject, n.Generation,
		n.Current.ID, when(n.Current.IssuedAt), when(n.Current.ExpiresAt), n.Current.KeyID, claims(n.Current),
		n.Previous.ID, when(n.Previous.IssuedAt), when(n.Previous.ExpiresAt),
		when(n.RotatedAt), when(n.LastRefreshAt), when(n.IdleUntil), when(n.ExpiresAt), when(n.TokensUntil),
		n.KeepUntil(), n.ForgetAfter(), s.now())
}

// Room is [session.ErrFull] when there is no room for another session, as far as this
// instance knows (see [StoreOptions]), and nil when there is.
func (s *Store) Room(ctx context.Context) error {
	if s.quota == nil {
		return nil
	}
	return s.quota.room(ctx, func() {})
}

// count is the number of live sessions.
func (s *Store) count(ctx context.Context) (n int, err error) {
	err = s.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT count(*) FROM tokenward.sessions WHERE policy = $1 AND keep_until >= $2", string(s.policy), s.now()).Scan(&n)
	})
	return n, err
}
