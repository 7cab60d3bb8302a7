// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/issuer/granted"
)

// grantedStore is in a server that a Secret opens.
type grantedStore struct {
	keeper *granted.Keeper[Sessions]
}

var _ Store = grantedStore{}

// Create implements [session.Store].
func (s grantedStore) Create(ctx context.Context, created session.Session) error {
	return s.keeper.Use(ctx, func(store Sessions) error { return store.Create(ctx, created) })
}

// Load implements [session.Store].
func (s grantedStore) Load(ctx context.Context, id session.ID) (found session.Session, _ error) {
	err := s.keeper.Use(ctx, func(store Sessions) (err error) {
		found, err = store.Load(ctx, id)
		return err
	})
	return found, err
}

// Swap implements [session.Store].
func (s grantedStore) Swap(ctx context.Context, next session.Session) (stored session.Session, _ error) {
	err := s.keeper.Use(ctx, func(store Sessions) (err error) {
		stored, err = store.Swap(ctx, next)
		return err
	})
	return stored, err
}

// Revocations implements [session.Store]. The stream ends when the store is replaced,
// and is resumed on the next one with its cursor.
func (s grantedStore) Revocations(ctx context.Context, since session.Cursor) (events <-chan session.Event, _ error) {
	err := s.keeper.Follow(ctx, func(ctx context.Context, store Sessions) (err error) {
		events, err = store.Revocations(ctx, since)
		return err
	})
	return events, err
}

// RevokeWhere implements [session.Revoker].
func (s grantedStore) RevokeWhere(ctx context.Context, which session.Selection, as session.Revocation) (revoked int, _ error) {
	err := s.keeper.Use(ctx, func(store Sessions) error {
		n, err := store.RevokeWhere(ctx, which, as)
		revoked += n
		return err
	})
	return revoked, err
}

// Take implements [attempts.Counter].
func (s grantedStore) Take(ctx context.Context, key attempts.Key, limit attempts.Limit) (wait time.Duration, _ error) {
	err := s.keeper.Use(ctx, func(store Sessions) (err error) {
		wait, err = store.Take(ctx, key, limit)
		return err
	})
	return wait, err
}

// GiveBack implements [attempts.Counter].
func (s grantedStore) GiveBack(ctx context.Context, key attempts.Key, limit attempts.Limit) error {
	return s.keeper.Use(ctx, func(store Sessions) error { return store.GiveBack(ctx, key, limit) })
}

// Look implements [Store].
func (s grantedStore) Look(ctx context.Context) StoreLook {
	look, err := s.keeper.Look(ctx)
	if err != nil {
		return StoreLook{Err: err}
	}
	return StoreLook{Err: look.Err, Former: look.Former}
}

// Close implements [Store].
func (s grantedStore) Close() error {
	s.keeper.Close()
	return nil
}

// PoolStats are figures of the connections of a store.
type PoolStats struct {
	// Connections are open now, and Limit of them may be.
	Connections, Limit int
	// Waits is how often a call had to wait for one, since they were opened.
	Waits int64
}

// pooled is a store that counts its connections.
type pooled interface{ pool() PoolStats }

func (s grantedStore) pool() (stats PoolStats, ok bool) {
	s.keeper.Peek(func(store Sessions) {
		if counting, is := store.(pooled); is {
			stats, ok = counting.pool(), true
		}
	})
	return stats, ok
}
