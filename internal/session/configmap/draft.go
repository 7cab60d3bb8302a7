// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"maps"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session"
)

// The sizes in bytes from which a shard takes no more. Kubernetes refuses a ConfigMap
// whose values are beyond 1 MiB; what is between is room for the sessions that exist,
// and above all for their revocation, which nothing here refuses.
const (
	createLimit = 900 << 10
	swapLimit   = 1000 << 10
)

// operation is a change that waits for its shard's next write.
type operation struct {
	kind kind
	at   place
	// next is the session to create or to swap in; version is what it becomes.
	next    session.Session
	version string
	// which sessions to revoke, and as what.
	which session.Selection
	as    session.Revocation
	// digest and limit of what is tried.
	digest digest
	limit  attempts.Limit
	// abandoned is closed when the caller has gone.
	abandoned <-chan struct{}
	result    chan result // takes one
}

type kind int

const (
	create kind = iota
	swap
	// revokeWhere is of every session of a shard.
	revokeWhere
	// take and giveBack are of the shard of attempts.
	take
	giveBack
	// collect only removes what is dead, as every write does.
	collect
)

type result struct {
	session session.Session
	revoked int
	wait    time.Duration
	err     error
}

// draft is what a shard becomes when a batch is applied to it. Its results hold once
// it was written under the base's resourceVersion, or, where it changes nothing, if
// the base is the shard as it is.
type draft struct {
	entries map[string]*entry
	size    int
	created int
	results []result
	changed bool
	// sequence is the last one of the shard's revocations; 0 before it was looked for.
	sequence int64
	// refused: some result is an error, which an outdated base may be the cause of.
	refused bool
}

// apply is the batch's effect on base; full refuses every growing operation. It reads
// nothing and writes nothing.
func (s *Store) apply(base *content, batch []*operation, full bool, now time.Time) *draft {
	d := &draft{entries: maps.Clone(base.entries), size: base.size}
	removed := false
	for key, e := range base.entries {
		if e.err == nil && e.record.dead(now) {
			d.size -= len(key) + len(e.sealed)
			delete(d.entries, key)
			removed = true
		}
	}
	for _, op := range batch {
		var r result
		switch op.kind {
		case create:
			r.err = s.applyCreate(d, op, full)
		case swap:
			r.session, r.err = s.applySwap(d, op, full, now)
		case revokeWhere:
			r.revoked, r.err = s.applyRevokeWhere(d, op, now)
		case take, giveBack: // never of a shard of sessions
		case collect:
			d.changed = d.changed || removed
		}
		d.refused = d.refused || r.err != nil
		d.results = append(d.results, r)
	}
	return d
}

func (s *Store) applyCreate(d *draft, op *operation, full bool) error {
	if e := d.entries[op.at.key]; e != nil {
		switch {
		case e.err != nil:
			// Also where the record is known to be forged: it is not ours to replace.
			return session.ErrExists
		case e.record.landed(op.version):
			return nil
		}
		return session.ErrExists
	}
	next := &record{Session: op.next}
	next.Version = op.version
	if full || !s.quota.admit(op.at.shard, d.created+1) || !s.put(d, op.at, next, createLimit) {
		return session.ErrFull
	}
	d.created++
	return nil
}

func (s *Store) applySwap(d *draft, op *operation, full bool, now time.Time) (session.Session, error) {
	e := d.entries[op.at.key]
	switch {
	case e == nil:
		return session.Session{}, session.ErrNotFound
	case e.err != nil:
		return session.Session{}, unreadable(e.err)
	}
	stored := e.record
	next := &record{prior: stored.Version, sequence: stored.sequence}
	limit := swapLimit
	switch {
	case stored.landed(op.version):
		return stored.Session, nil
	case op.next.Revoked != nil && stored.Revoked != nil:
		return stored.Session, nil
	case op.next.Revoked != nil:
		next.Session = stored.RevokedLike(op.next)
		next.sequence = d.nextSequence(now)
		limit = 1 << 30
	case stored.Revoked != nil, stored.Version != op.next.Version:
		return stored.Session, session.ErrStale
	case full:
		return session.Session{}, session.ErrFull
	default:
		next.Session = op.next
		next.CreatedAt = stored.CreatedAt
	}
	next.Version = op.version
	if !s.put(d, op.at, next, limit) {
		return session.Session{}, session.ErrFull
	}
	return next.Session, nil
}

// put seals r into the draft; false when it grows the shard beyond limit.
func (s *Store) put(d *draft, at place, r *record, limit int) bool {
	sealed := s.config.Sealer.seal(at, r.encode())
	size := d.size + len(sealed)
	if old := d.entries[at.key]; old != nil {
		size -= len(old.sealed)
	} else {
		size += len(at.key)
	}
	if size > limit && size > d.size {
		return false
	}
	d.entries[at.key] = &entry{sealed: sealed, record: r}
	d.size = size
	d.changed = true
	return true
}

// nextSequence is the time in milliseconds, but always beyond what the shard has seen:
// also after its clock, or the whole cluster, was set back.
func (d *draft) nextSequence(now time.Time) int64 {
	if d.sequence == 0 {
		for _, e := range d.entries {
			if e.err == nil {
				d.sequence = max(d.sequence, e.record.sequence)
			}
		}
	}
	d.sequence = max(d.sequence+1, now.UnixMilli())
	return d.sequence
}
