// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"errors"
	"io"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// linger is how long what was replaced stays open, for calls that are under way on the
// snapshot that has it. No call takes longer.
const linger = 30 * time.Second

// leaving are user sources and stores that have a successor, or none any more. The zero
// value is ready to use.
type leaving struct {
	mu sync.Mutex
	// superseded ones may still be in the snapshot in force, until it is settled that it
	// has their successors.
	superseded map[types.NamespacedName][]io.Closer
	all        map[io.Closer]*time.Timer
	closing    sync.WaitGroup
}

// supersede waits for [leaving.settle].
func (l *leaving) supersede(key types.NamespacedName, it io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.superseded == nil {
		l.superseded = map[types.NamespacedName][]io.Closer{}
	}
	l.superseded[key] = append(l.superseded[key], it)
}

// settle retires what was superseded: the snapshot in force does not have it.
func (l *leaving) settle(key types.NamespacedName) {
	l.mu.Lock()
	all := l.superseded[key]
	delete(l.superseded, key)
	l.mu.Unlock()
	for _, it := range all {
		l.retire(it)
	}
}

// retire closes it when nobody can be using it any more.
func (l *leaving) retire(it io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[io.Closer]*time.Timer{}
	}
	l.all[it] = time.AfterFunc(linger, func() {
		l.mu.Lock()
		_, still := l.all[it]
		delete(l.all, it)
		if still {
			l.closing.Add(1)
		}
		l.mu.Unlock()
		if still {
			defer l.closing.Done()
			_ = it.Close() // nothing is left to be done about it
		}
	})
}

// close all of them now.
func (l *leaving) close() error {
	l.mu.Lock()
	var all []io.Closer
	for it, timer := range l.all {
		timer.Stop()
		all = append(all, it)
	}
	for _, superseded := range l.superseded {
		all = append(all, superseded...)
	}
	clear(l.all)
	clear(l.superseded)
	l.mu.Unlock()
	// Side by side: one whose server hangs must not keep the others open.
	errs := make([]error, len(all))
	for i, it := range all {
		l.closing.Go(func() { errs[i] = it.Close() })
	}
	l.closing.Wait()
	return errors.Join(errs...)
}
