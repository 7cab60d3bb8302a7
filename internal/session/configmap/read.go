// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What bounds an instance's reads of all shards. Beyond it loads wait, and those of
// one shard wait for the same read.
const (
	concurrentReads = 4
	readsPerSecond  = 250
	readBurst       = 50
)

// shardReader reads one shard from the API server, for everyone who asks at that time.
type shardReader struct {
	store *Store
	shard int
	wake  chan struct{} // holds one

	mu sync.Mutex
	// next is the read that has not begun yet; a caller may only share that one.
	next *flight
	// newest is the latest content seen by read, write or watch, or nil: where a write
	// begins. It is replaced under mu, and read without: the quota reads it under a
	// lock of its own.
	newest atomic.Pointer[content]
}

type flight struct {
	done    chan struct{}
	content *content
	err     error
}

// read returns the shard as it was at some moment after the call.
func (r *shardReader) read(ctx context.Context) (*content, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &flight{done: make(chan struct{})}
	}
	f := r.next
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	select {
	case <-f.done:
		return f.content, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.store.ctx.Done():
		return nil, errClosed
	}
}

// run reads when anyone waits, until the store is closed.
func (r *shardReader) run() {
	s := r.store
	for {
		select {
		case <-r.wake:
		case <-s.ctx.Done():
			return
		}
		// The wait for a place comes first, so that more can share the read.
		select {
		case s.reads <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		if s.readPace.wait(s.ctx) != nil {
			return
		}
		r.mu.Lock()
		f := r.next
		r.next = nil
		r.mu.Unlock()
		if f != nil {
			f.content, f.err = r.get(r.newest.Load())
			close(f.done)
		}
		<-s.reads
	}
}

// get reads the shard. Mostly it is still what is known, which its resourceVersion
// alone tells, in about half the time.
func (r *shardReader) get(known *content) (*content, error) {
	s := r.store
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	key := client.ObjectKey{Namespace: s.config.Namespace, Name: s.shardName(r.shard)}
	if known != nil && known.object != nil && !known.unreadable {
		version, err := r.version(ctx, key)
		if err != nil {
			return nil, err
		}
		// The watch may have brought the very version meanwhile.
		for _, c := range []*content{known, r.newest.Load()} {
			if c.object != nil && c.object.ResourceVersion == version && !c.unreadable {
				return c, nil
			}
		}
	}
	object := &corev1.ConfigMap{}
	if found, err := r.fetch(ctx, key, object); err != nil {
		return nil, err
	} else if !found {
		object = nil
	}
	c := s.parse(r.shard, object, known)
	r.learn(c, false)
	return c, nil
}

// version is the shard's resourceVersion now; empty when there is no such ConfigMap.
func (r *shardReader) version(ctx context.Context, key client.ObjectKey) (string, error) {
	metadata := &metav1.PartialObjectMetadata{}
	metadata.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	_, err := r.fetch(ctx, key, metadata)
	return metadata.ResourceVersion, err
}

func (r *shardReader) fetch(ctx context.Context, key client.ObjectKey, object client.Object) (found bool, _ error) {
	r.store.stats.reads.Add(1)
	switch err := r.store.config.Client.Get(ctx, key, object); {
	case err == nil:
		return true, nil
	case r.store.ctx.Err() != nil:
		return false, errClosed
	case apierrors.IsNotFound(err):
		return false, nil
	default:
		return false, fmt.Errorf("read session shard %q: %w", key.Name, err)
	}
}

// learn takes content that is newer than what is known. What this instance has
// written replaces it whatever it was: a cluster that was restored from a backup
// counts its resourceVersions from an earlier one.
func (r *shardReader) learn(c *content, written bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if written || c.newerThan(r.newest.Load()) {
		r.newest.Store(c)
		// The watch may tell of this instance's own write before the answer to it does.
		// Its creates must not be counted a second time as pending: near the limit, others
		// would be refused although there is room.
		ours := c.object != nil && c.object.Annotations[writerAnnotation] == r.store.instance
		sessions := len(c.entries)
		if r.shard == r.store.attemptsShard() {
			sessions = 0
		}
		r.store.quota.set(r.shard, sessions, written || ours)
	}
}

// live counts the sessions that are not dead at now.
func (r *shardReader) live(now time.Time) int {
	known := r.newest.Load()
	if known == nil || r.shard == r.store.attemptsShard() {
		return 0
	}
	sessions := 0
	for _, e := range known.entries {
		if e.err != nil || !e.record.dead(now) {
			sessions++
		}
	}
	return sessions
}

// dirty reports whether something dead is there to be removed.
func (r *shardReader) dirty(now time.Time) bool {
	known := r.newest.Load()
	if known == nil {
		return false
	}
	for _, e := range known.entries {
		if e.err == nil && (e.record != nil && e.record.dead(now) || e.table.dead(now) > 0) {
			return true
		}
	}
	return false
}
