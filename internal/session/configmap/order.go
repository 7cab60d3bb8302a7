// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	closed := &closedRecords{}
	for _, op := range ops {
		r := s.outcome(ctx, op)
		revoked += r.revoked
		if of, ok := errors.AsType[*closedRecords](r.err); ok {
			closed.places, closed.causes = append(closed.places, of.places...), append(closed.causes, of.causes...)
		} else {
			failed = append(failed, r.err)
		}
	}
	if ctx.Err() != nil {
		return revoked, ctx.Err() // once, and not for each shard
	}
	if err := errors.Join(failed...); err != nil || len(closed.places) == 0 {
		return revoked, err // which may pass, and then the next call tells of the others
	}
	return revoked, s.explainClosed(closed)
}

// closedRecords are those of a shard that are ours and cannot be opened.
type closedRecords struct {
	places []place
	causes []error
}

func (e *closedRecords) Error() string {
	return fmt.Sprintf("%d records cannot be opened", len(e.places))
}

func (s *Store) explainClosed(closed *closedRecords) error {
	unreadable, newer, keyless := &session.UnreadableError{}, false, false
	for i, at := range closed.places {
		unreadable.Add(fmt.Sprintf("ConfigMap %s/%s key %s", s.config.Namespace, s.shardName(at.shard), at.key), closed.causes[i])
		newer = newer || errors.Is(closed.causes[i], errNewerFormat)
		keyless = keyless || !errors.Is(closed.causes[i], errNewerFormat)
	}
	var remedies []string
	if newer {
		remedies = append(remedies, "finish the upgrade to the release that wrote them")
	}
	if keyless {
		remedies = append(remedies, "put the lost sealing key back into the Secret "+SecretName+" or delete the records")
	}
	unreadable.Remedy = strings.Join(remedies, ", and ")
	return unreadable
}

// applyRevokeWhere gives every session that it revokes the operation's version: so it
// knows them again when the answer to the write was lost.
func (s *Store) applyRevokeWhere(d *draft, op *operation, now time.Time) (revoked int, err error) {
	closed := &closedRecords{}
	for _, key := range slices.Sorted(maps.Keys(d.entries)) {
		e := d.entries[key]
		switch {
		case errors.Is(e.err, errTampered):
			continue // not one of ours
		case e.err != nil:
			closed.places = append(closed.places, place{policy: op.at.policy, shard: op.at.shard, key: key})
			closed.causes = append(closed.causes, e.err)
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
	if len(closed.places) > 0 {
		err = closed
	}
	return revoked, err
}
