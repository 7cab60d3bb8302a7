// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenward/tokenward/internal/session"
)

// RevokeWhere is [session.Revoker.RevokeWhere]. It is one operation for each shard, and
// one write for each that has such a session, together with what else waits for it.
//
// A record that cannot be opened although it is ours makes it fail after the others
// are revoked: whose it is cannot be known, and the key may come back.
func (s *Store) RevokeWhere(ctx context.Context, which session.Selection, as session.Revocation) (revoked int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	version := newVersion()
	ops := make([]*operation, s.config.Shards)
	for shard := range ops {
		ops[shard] = &operation{
			kind: revokeWhere, at: place{policy: string(s.config.Policy), shard: shard},
			which: which, as: as, version: version,
		}
		s.begin(ctx, ops[shard])
	}
	var failed []error
	for _, op := range ops {
		r := s.outcome(ctx, op)
		revoked += r.revoked
		failed = append(failed, r.err)
	}
	if ctx.Err() != nil {
		return revoked, ctx.Err() // once, and not for each shard
	}
	return revoked, errors.Join(failed...)
}

// applyRevokeWhere gives every session that it revokes the operation's version: so it
// knows them again when the answer to the write was lost.
func (s *Store) applyRevokeWhere(d *draft, op *operation, now time.Time) (revoked int, err error) {
	for key, e := range d.entries {
		switch {
		case errors.Is(e.err, errTampered):
			continue // not one of ours
		case e.err != nil:
			err = fmt.Errorf("revoke the sessions of shard %q, of which some cannot be read: %w", s.shardName(op.at.shard), e.err)
			continue
		case e.record.Version == op.version:
			revoked++
			continue
		case e.record.Revoked != nil || !op.which.Includes(e.record.Session):
			continue
		}
		next := &record{Session: e.record.Revoke(op.as.Reason, op.as.At), prior: e.record.Version, sequence: d.nextSequence(now)}
		next.Version = op.version
		// Whatever the shard's size: a revocation is never refused.
		s.put(d, place{policy: op.at.policy, shard: op.at.shard, key: key}, next, 1<<30)
		revoked++
	}
	return revoked, err
}
