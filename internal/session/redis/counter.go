// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
)

var _ attempts.Counter = (*Store)(nil)

func (s *Store) allowance(key attempts.Key) string { return s.scope() + "a:" + string(key) }

// Take is [attempts.Counter.Take]. The time is the issuer's, so that it does not matter
// what time the server has.
func (s *Store) Take(ctx context.Context, key attempts.Key, limit attempts.Limit) (time.Duration, error) {
	now := s.options.Now()
	usedUp := now.Add(time.Duration(limit.Burst) * limit.Interval)
	writer := newVersion()
	return do(ctx, s, "count an attempt", func(ctx context.Context) (time.Duration, error) {
		wait, err := s.scripts.take.Run(ctx, s.client, []string{s.allowance(key)}, writer, now.UnixMilli(),
			usedUp.UnixMilli(), usedUp.Add(attempts.Skew).UnixMilli(), limit.Interval.Milliseconds()).Int64()
		return time.Duration(wait) * time.Millisecond, err
	})
}

// GiveBack is [attempts.Counter.GiveBack].
func (s *Store) GiveBack(ctx context.Context, key attempts.Key, limit attempts.Limit) error {
	writer := newVersion()
	_, err := do(ctx, s, "give an attempt back", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.scripts.giveBack.Run(ctx, s.client, []string{s.allowance(key)}, writer, limit.Interval.Milliseconds()).Err()
	})
	return err
}
