// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// concurrentReads bounds the reads that an instance has under way. Beyond it, loads
// wait, and those of one shard wait for the same read.
const concurrentReads = 4

// shardReader reads one shard from the API server, for everyone who asks at that time.
type shardReader struct {
	store *Store
	shard int
	wake  chan struct{} // holds one

	mu sync.Mutex
	// next is the read that has not begun yet; a caller may only share that one.
	next *flight
	// newest is the latest content seen by read, write or watch: where a write begins.
	newest *content
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
		r.mu.Lock()
		f, known := r.next, r.newest
		r.next = nil
		r.mu.Unlock()
		if f != nil {
			f.content, f.err = r.get(known)
			close(f.done)
		}
		<-s.reads
	}
}

func (r *shardReader) get(known *content) (*content, error) {
	s := r.store
	ctx, cancel := context.WithTimeout(s.ctx, requestTimeout)
	defer cancel()
	object := &corev1.ConfigMap{}
	name := shardName(s.config.Policy, r.shard)
	switch err := s.config.Client.Get(ctx, client.ObjectKey{Namespace: s.config.Namespace, Name: name}, object); {
	case s.ctx.Err() != nil:
		return nil, errClosed
	case apierrors.IsNotFound(err):
		object = nil
	case err != nil:
		return nil, fmt.Errorf("read session shard %q: %w", name, err)
	}
	c := s.parse(r.shard, object, known)
	r.learn(c, false)
	return c, nil
}

// known is the newest content seen, or nil.
func (r *shardReader) known() *content {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}

// learn takes content that is newer than what is known. What this instance has
// written replaces it whatever it was: a cluster that was restored from a backup
// counts its resourceVersions from an earlier one.
func (r *shardReader) learn(c *content, written bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if written || c.newerThan(r.newest) {
		r.newest = c
		r.store.quota.set(r.shard, len(c.entries), written)
	}
}

// live counts the sessions that are not dead at now.
func (r *shardReader) live(now time.Time) int {
	known := r.known()
	if known == nil {
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
