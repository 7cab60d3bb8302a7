// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
)

const (
	// attemptsKey is the data key of the table in its ConfigMap.
	attemptsKey = "attempts"
	// attemptsShare of the permitted writes is what counting may use at most, however
	// many guess: the rest is for sessions.
	attemptsShare = 0.2
	// attemptsBurst is how many of them may follow each other at once.
	attemptsBurst = 2
)

var errNoKey = errors.New("count an attempt: the key is none of attempts.NewKey")

// attemptsShard is the number of the shard that holds the table of attempts. It comes
// after those of the sessions.
func (s *Store) attemptsShard() int { return s.config.Shards }

// Take is [attempts.Counter.Take]. A write whose answer was lost may count twice, never
// less than once.
func (s *Store) Take(ctx context.Context, key attempts.Key, limit attempts.Limit) (wait time.Duration, err error) {
	r := s.count(ctx, take, key, limit)
	return r.wait, r.err
}

// GiveBack is [attempts.Counter.GiveBack]. A write whose answer was lost may give back
// twice; that makes one attempt more, once for each lost answer.
func (s *Store) GiveBack(ctx context.Context, key attempts.Key, limit attempts.Limit) error {
	return s.count(ctx, giveBack, key, limit).err
}

func (s *Store) count(ctx context.Context, kind kind, key attempts.Key, limit attempts.Limit) result {
	op := &operation{kind: kind, at: place{policy: string(s.config.Policy), shard: s.attemptsShard(), key: attemptsKey}, limit: limit}
	raw, err := base64.RawURLEncoding.DecodeString(string(key))
	if err != nil || copy(op.digest[:], raw) != len(raw) || len(raw) != len(op.digest) {
		return result{err: errNoKey}
	}
	return s.do(ctx, op)
}

func (s *Store) openTable(at place, sealed []byte) (table, error) {
	if at.key != attemptsKey {
		return nil, errTampered
	}
	plain, err := s.config.Sealer.open(at, sealed)
	if err != nil {
		return nil, err
	}
	return decodeTable(plain)
}

// applyAttempts is [Store.apply] for the shard of attempts.
func (s *Store) applyAttempts(base *content, batch []*operation, now time.Time) *draft {
	d := &draft{entries: base.entries, size: base.size}
	t := table{}
	if known := base.entries[attemptsKey]; known != nil {
		t = known.table.clone()
		// What cannot be opened is begun anew, but not for an outdated base.
		d.refused = known.err != nil
	}
	removed, turn := t.forget(now), int64(0)
	for _, a := range t {
		turn = max(turn, a.turn)
	}
	for _, op := range batch {
		var r result
		changed := false
		switch op.kind {
		case take:
			turn++
			r.wait, changed = t.take(op.digest, op.limit, turn, now)
		case giveBack:
			changed = t.giveBack(op.digest, op.limit, now)
		case collect:
			changed = removed
		case create, swap, revokeWhere: // never of this shard
		}
		d.changed = d.changed || changed
		d.results = append(d.results, r)
	}
	if !d.changed {
		return d
	}
	t.evict(maxKeys)
	d.entries = maps.Clone(base.entries)
	at := place{policy: string(s.config.Policy), shard: s.attemptsShard(), key: attemptsKey}
	d.entries[attemptsKey] = &entry{sealed: s.config.Sealer.seal(at, t.encode()), table: t}
	return d
}
