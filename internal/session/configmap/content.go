// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/tokenward/tokenward/internal/session"
)

// shardName is the ConfigMap of a shard.
func (s *Store) shardName(shard int) string {
	if shard == s.attemptsShard() {
		return fmt.Sprintf("attempts-%s", s.config.Policy)
	}
	return fmt.Sprintf("sessions-%s-%d", s.config.Policy, shard)
}

// locate says where a session is kept.
func locate(policy session.PolicyID, shards int, id session.ID) place {
	// The length keeps policy and id apart.
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", len(policy), policy, id))
	shard := binary.BigEndian.Uint32(sum[16:]) % uint32(shards) //nolint:gosec // 1 to 64
	return place{policy: string(policy), shard: int(shard), key: shortHash(sum[:])}
}

// content is a shard as it was read or written. It is never changed.
type content struct {
	// object is nil when there is no such ConfigMap.
	object  *corev1.ConfigMap
	entries map[string]*entry // by data key
	size    int               // of all values and data keys, in bytes
	// unreadable: some entry did not open, which another try may.
	unreadable bool
}

// entry is one value of a shard, with what is in it.
type entry struct {
	sealed []byte
	record *record // nil with an err, and in the shard of attempts
	table  table   // of the shard of attempts
	err    error   // errKeyUnknown, errNewerFormat or errTampered
}

// parse opens what is new or changed against before, which may be nil.
func (s *Store) parse(shard int, object *corev1.ConfigMap, before *content) *content {
	c := &content{object: object, entries: map[string]*entry{}}
	if object == nil {
		return c
	}
	// We write no such values, but they count towards what a ConfigMap may hold.
	for key, value := range object.Data {
		c.size += len(key) + len(value)
	}
	for key, sealed := range object.BinaryData {
		c.size += len(key) + len(sealed)
		// What could not be opened is tried again: the key may be there by now.
		if before != nil {
			if known := before.entries[key]; known != nil && known.err == nil && bytes.Equal(known.sealed, sealed) {
				c.entries[key] = known
				continue
			}
		}
		e := &entry{sealed: sealed}
		if at := (place{policy: string(s.config.Policy), shard: shard, key: key}); shard == s.attemptsShard() {
			e.table, e.err = s.openTable(at, sealed)
		} else {
			e.record, e.err = s.openRecord(at, sealed)
		}
		c.unreadable = c.unreadable || e.err != nil
		c.entries[key] = e
	}
	return c
}

func (s *Store) openRecord(at place, sealed []byte) (*record, error) {
	plain, err := s.config.Sealer.open(at, sealed)
	if err != nil {
		return nil, err
	}
	return decode(s.config.Policy, plain)
}

// find returns the record of a session, and why there is none.
func (c *content) find(key string, now time.Time) (*record, error) {
	e := c.entries[key]
	switch {
	case e == nil:
		return nil, session.ErrNotFound
	case e.err != nil:
		return nil, unreadable(e.err)
	case e.record.dead(now):
		return nil, session.ErrNotFound
	}
	return e.record, nil
}

// unreadable is what a caller is told of a record that does not open: a session that
// was tampered with is not one of ours, everything else is our own trouble.
func unreadable(err error) error {
	if errors.Is(err, errTampered) {
		return session.ErrNotFound
	}
	return fmt.Errorf("read session record: %w", err)
}

// newerThan compares by resourceVersion, whose order Kubernetes guarantees within a
// kind; what cannot be compared counts as newer.
func (c *content) newerThan(other *content) bool {
	if other == nil || other.object == nil || c.object == nil {
		return true
	}
	order, err := resourceversion.CompareResourceVersion(c.object.ResourceVersion, other.object.ResourceVersion)
	return err != nil || order > 0
}
