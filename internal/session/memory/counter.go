// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
)

// Take is [attempts.Counter.Take].
func (s *Store) Take(ctx context.Context, key attempts.Key, limit attempts.Limit) (wait time.Duration, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	d, now := s.data, s.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(now)
	d.whole[key], wait = limit.Take(d.whole[key], now)
	return wait, nil
}

// GiveBack is [attempts.Counter.GiveBack].
func (s *Store) GiveBack(ctx context.Context, key attempts.Key, limit attempts.Limit) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	d := s.data
	d.mu.Lock()
	defer d.mu.Unlock()
	if whole, kept := d.whole[key]; kept {
		d.whole[key] = limit.GiveBack(whole)
	}
	d.forget(s.now())
	return nil
}

func (d *sessions) forget(now time.Time) {
	for key, whole := range d.whole {
		if !whole.After(now) {
			delete(d.whole, key)
		}
	}
}
