// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/session"
)

// feed is what the watch has told of every shard's revocations.
type feed struct {
	mu     sync.Mutex
	shards [][]*record // revoked ones, by sequence
	// changed is closed and replaced when something was revoked.
	changed chan struct{}
	// synced is closed when every shard was told of once.
	synced chan struct{}
	once   sync.Once
}

func newFeed(shards int) *feed {
	return &feed{shards: make([][]*record, shards), changed: make(chan struct{}), synced: make(chan struct{})}
}

func (f *feed) isSynced() { f.once.Do(func() { close(f.synced) }) }

// update takes the present content of a shard.
func (f *feed) update(shard int, c *content) {
	var revoked []*record
	for _, e := range c.entries {
		if e.err == nil && e.record.Revoked != nil {
			revoked = append(revoked, e.record)
		}
	}
	slices.SortFunc(revoked, func(a, b *record) int { return cmp.Compare(a.sequence, b.sequence) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[shard] = revoked
	close(f.changed)
	f.changed = make(chan struct{})
}

// since returns the revocations after the cursor that matter at now, shard by shard
// and oldest first, and a channel that is closed at the next change.
func (f *feed) since(from vector, now time.Time) ([]revocation, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var news []revocation
	for shard, revoked := range f.shards {
		first, _ := slices.BinarySearchFunc(revoked, from[shard]+1, func(r *record, n int64) int { return cmp.Compare(r.sequence, n) })
		for _, r := range revoked[first:] {
			if r.ForgetAfter().After(now) {
				news = append(news, revocation{shard: shard, record: r})
			}
		}
	}
	return news, f.changed
}

// rewind starts a shard anew where the cursor is from a future that never came:
// somebody restored the shard from a backup, or made the cursor up.
func (f *feed) rewind(from vector, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	horizon := now.Add(session.MaxLeeway).UnixMilli()
	for shard, revoked := range f.shards {
		last := horizon
		if n := len(revoked); n > 0 {
			last = max(last, revoked[n-1].sequence)
		}
		if from[shard] > last {
			from[shard] = 0
		}
	}
}

type revocation struct {
	shard  int
	record *record
}

// vector is a cursor: the last sequence seen of each shard.
type vector []int64

// cursorPrefix tells this form of cursor from later ones.
const cursorPrefix = "1"

// cursor writes one number per shard to the base 36: 9 characters today, so 64 shards
// come to 577.
func (v vector) cursor() session.Cursor {
	var b strings.Builder
	b.WriteString(cursorPrefix)
	for _, n := range v {
		b.WriteByte('.')
		b.WriteString(strconv.FormatInt(n, 36))
	}
	return session.Cursor(b.String())
}

// parseCursor takes everything for the beginning that is not a cursor of so many shards.
func parseCursor(c session.Cursor, shards int) vector {
	v := make(vector, shards)
	parts := strings.Split(string(c), ".")
	if parts[0] != cursorPrefix || len(parts) != shards+1 {
		return v
	}
	for i, part := range parts[1:] {
		n, err := strconv.ParseInt(part, 36, 64)
		if err != nil || n < 0 {
			return make(vector, shards)
		}
		v[i] = n
	}
	return v
}
