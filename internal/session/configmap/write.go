// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// requestTimeout bounds one request to the API server.
	requestTimeout = 10 * time.Second
	// tries is how often a batch is tried before its callers are told that the store
	// cannot be written.
	tries = 10
	// conflicts is how often a batch may lose against another instance beyond that. Each
	// time that one has come forward, so waiting is worth more than giving up.
	conflicts = 64
	// retryAfter grows with each attempt that failed other than by a conflict.
	retryAfter = 25 * time.Millisecond
)

// shardWriter is the only one in this instance that writes its shard.
type shardWriter struct {
	store  *Store
	shard  int
	reader *shardReader
	// pace is the writer's own beside the store's; nil is none.
	pace *pace

	mu      sync.Mutex
	pending []*operation
	wake    chan struct{} // holds one
}

func (w *shardWriter) enqueue(op *operation) {
	w.mu.Lock()
	w.pending = append(w.pending, op)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *shardWriter) take() []*operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch := w.pending
	w.pending = nil
	return batch
}

// run gathers and commits until the store is closed. What is pending then is answered
// by the closed store, see [Store.do].
func (w *shardWriter) run() {
	ctx := w.store.ctx
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		// Waiting for a place in the pace is gathering, too.
		if w.wait(ctx) != nil || sleep(ctx, w.store.config.Gather) != nil {
			return
		}
		if !w.commit(ctx, w.take()) {
			w.store.pace.unused()
		}
	}
}

// wait waits for the place of one write. A place in the writer's own pace is not given
// back: it bounds the reads, too, that come to no write.
func (w *shardWriter) wait(ctx context.Context) error {
	if w.pace != nil {
		if err := w.pace.wait(ctx); err != nil {
			return err
		}
	}
	return w.store.pace.wait(ctx)
}

// commit brings a batch to its end and answers it. It reports whether it used the
// place in the pace that its caller has waited for.
func (w *shardWriter) commit(ctx context.Context, batch []*operation) (used bool) {
	s := w.store
	defer s.quota.drop(w.shard)
	base, current, full := w.reader.newest.Load(), false, false
	var err error
	lost := 0
	for attempt := 0; attempt < tries && ctx.Err() == nil; attempt++ {
		if attempt+lost > 0 && w.wait(ctx) != nil {
			return used
		}
		if batch = alive(batch); len(batch) == 0 {
			return used
		}
		if base == nil {
			if base, err = w.reader.read(ctx); err != nil {
				base = nil
				_ = sleep(ctx, backoff(attempt))
				continue
			}
			current = true
		}
		d := w.draft(base, batch, full)
		if !current && (d.refused || !d.changed) {
			// Whoever is refused must be refused for what is, not for what was.
			if base, err = w.reader.read(ctx); err != nil {
				base = nil
				_ = sleep(ctx, backoff(attempt))
				continue
			}
			d = w.draft(base, batch, full)
		}
		if !d.changed {
			answer(batch, d.results)
			return used
		}
		used = true
		var written *content
		if written, err = w.write(ctx, base, d); err == nil {
			w.reader.learn(written, true)
			answer(batch, d.results)
			return used
		}
		base, current = nil, false
		switch {
		case errors.Is(err, ErrPolicyGone):
			attempt = tries
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
			s.stats.conflicts.Add(1)
			if lost++; lost <= conflicts {
				attempt--
			}
		case apierrors.IsRequestEntityTooLargeError(err), apierrors.HasStatusCause(err, metav1.CauseType(field.ErrorTypeTooLong)):
			full = true // as large as our own limits allow, and something else in it
		case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsInvalid(err):
			attempt = tries // it was not obeyed, and asking again does not help
		default:
			_ = sleep(ctx, backoff(attempt))
		}
	}
	if ctx.Err() != nil {
		return used
	}
	// The callers report it too, but only this line says that it is the shard's trouble.
	s.config.Log.Error(err, "cannot write a session shard", "shard", s.shardName(w.shard), "waiting", len(batch))
	for _, op := range batch {
		op.result <- result{err: fmt.Errorf("write session shard %q: %w", s.shardName(w.shard), err)}
	}
	return used
}

func (w *shardWriter) draft(base *content, batch []*operation, full bool) *draft {
	now := w.store.config.Now()
	if w.shard == w.store.attemptsShard() {
		return w.store.applyAttempts(base, batch, now)
	}
	w.store.quota.drop(w.shard)
	return w.store.apply(base, batch, full, now)
}

// write makes one request. A timeout of it says nothing about whether it was obeyed.
func (w *shardWriter) write(ctx context.Context, base *content, d *draft) (*content, error) {
	s := w.store
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if base.object == nil {
		if err := s.config.Permit(ctx); err != nil {
			return nil, fmt.Errorf("make a session shard: %w", err)
		}
	}
	object := &corev1.ConfigMap{}
	if base.object != nil {
		object.ObjectMeta = *base.object.ObjectMeta.DeepCopy()
		object.Data = base.object.Data
	}
	object.Namespace, object.Name = s.config.Namespace, s.shardName(w.shard)
	if object.Labels == nil {
		object.Labels = map[string]string{}
	}
	maps.Copy(object.Labels, s.labels())
	if object.Annotations == nil {
		object.Annotations = map[string]string{}
	}
	object.Annotations[writerAnnotation] = s.instance
	// Nobody applies to a shard by field, and tracking hundreds of fields would be the
	// larger part of an update's cost: one empty entry turns the tracking off.
	object.ManagedFields = []metav1.ManagedFieldsEntry{{}}
	object.BinaryData = make(map[string][]byte, len(d.entries))
	for key, e := range d.entries {
		object.BinaryData[key] = e.sealed
	}
	s.stats.writes.Add(1)
	var err error
	if base.object == nil {
		err = s.config.Client.Create(ctx, object)
	} else {
		err = s.config.Client.Update(ctx, object)
	}
	if err != nil {
		return nil, err
	}
	written := &content{object: object, entries: d.entries, size: d.size}
	for _, e := range d.entries {
		written.unreadable = written.unreadable || e.err != nil
	}
	return written, nil
}

// alive drops the operations whose callers have gone.
func alive(batch []*operation) []*operation {
	left := make([]*operation, 0, len(batch))
	for _, op := range batch {
		select {
		case <-op.abandoned:
		default:
			left = append(left, op)
		}
	}
	return left
}

func answer(batch []*operation, results []result) {
	for i, op := range batch {
		op.result <- results[i]
	}
}

func backoff(attempt int) time.Duration {
	ceiling := min(retryAfter<<attempt, time.Second)
	return ceiling/2 + rand.N(ceiling/2+1) //nolint:gosec // spreads retries, hides nothing
}

// do hands an operation to its shard and waits for the outcome.
func (s *Store) do(ctx context.Context, op *operation) result {
	if err := ctx.Err(); err != nil {
		return result{err: err}
	}
	s.begin(ctx, op)
	return s.outcome(ctx, op)
}

func (s *Store) begin(ctx context.Context, op *operation) {
	op.abandoned, op.result = ctx.Done(), make(chan result, 1)
	s.writers[op.at.shard].enqueue(op)
}

func (s *Store) outcome(ctx context.Context, op *operation) result {
	select {
	case r := <-op.result:
		return r
	case <-ctx.Done():
		return result{err: ctx.Err()}
	case <-s.ctx.Done():
		return result{err: errClosed}
	}
}
