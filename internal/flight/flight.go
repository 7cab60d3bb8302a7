// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package flight lets callers that ask for the same thing at the same time share one
// answer. Unlike golang.org/x/sync/singleflight its keys are typed, so that two
// different things can never be joined into one string (design section 4), and a
// caller that gives up does not take the others down with it.
//
// It remembers nothing once the answer is there.
package flight

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Group joins calls by key. The zero value is ready to use.
type Group[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*call[V]
}

type call[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// Do runs work once for all callers that come with the same key while it runs, and
// gives every one the same answer; joined says that another caller had begun it.
//
// The work does not end with the caller's context, because others may wait for it:
// it gets the values of the first caller's context and at most timeout. A caller
// whose own context ends gets that context's error.
func (g *Group[K, V]) Do(ctx context.Context, key K, timeout time.Duration, work func(context.Context) (V, error)) (value V, joined bool, err error) {
	c, joined := g.join(ctx, key, timeout, work)
	select {
	case <-c.done:
		return c.value, joined, c.err
	case <-ctx.Done():
		return value, joined, ctx.Err()
	}
}

// Wait returns when no work runs any more.
func (g *Group[K, V]) Wait() {
	for {
		running := g.any()
		if running == nil {
			return
		}
		<-running.done
	}
}

func (g *Group[K, V]) any() *call[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		return c
	}
	return nil
}

func (g *Group[K, V]) join(ctx context.Context, key K, timeout time.Duration, work func(context.Context) (V, error)) (c *call[V], joined bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		return c, true
	}
	if g.calls == nil {
		g.calls = map[K]*call[V]{}
	}
	c = &call[V]{done: make(chan struct{})}
	g.calls[key] = c
	go g.run(ctx, key, timeout, work, c)
	return c, false
}

func (g *Group[K, V]) run(ctx context.Context, key K, timeout time.Duration, work func(context.Context) (V, error), c *call[V]) {
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	defer func() {
		// A panic is the work's own fault, and must neither leave callers waiting nor
		// end the process for all of them.
		if p := recover(); p != nil {
			c.err = panicked(p)
		}
		g.mu.Lock()
		delete(g.calls, key)
		g.mu.Unlock()
		close(c.done)
	}()
	c.value, c.err = work(detached)
}

// panicked keeps what the runtime itself says, and of any other value the type only:
// it might hold what must not be logged.
func panicked(p any) error {
	if err, ok := p.(runtime.Error); ok {
		return fmt.Errorf("panic: %w\n%s", err, debug.Stack())
	}
	return fmt.Errorf("panic of type %T\n%s", p, debug.Stack())
}
