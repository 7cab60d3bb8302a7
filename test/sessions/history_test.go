// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tokenward/tokenward/internal/session"
)

// history records what happens to one session at all instances of its store.
type history struct {
	began time.Time

	mu         sync.Mutex
	operations []porcupine.Operation
	faults     []error
	rotations  int
	// total counts the operations of all histories that were taken.
	total int
}

// recorder is an instance of a store whose loads and swaps go into a history.
type recorder struct {
	session.Store
	client  int
	history *history
}

// call and outcome are an operation as its caller saw it.
type call struct {
	swap    bool
	version string // of the swap
}

type outcome struct {
	version    string
	generation int64
	stale      bool
}

// Load implements [session.Store].
func (r recorder) Load(ctx context.Context, id session.ID) (session.Session, error) {
	begin := time.Since(r.history.began)
	got, err := r.Store.Load(ctx, id)
	r.history.add(r.client, begin, call{}, got, err)
	return got, err
}

// Swap implements [session.Store].
func (r recorder) Swap(ctx context.Context, next session.Session) (session.Session, error) {
	begin := time.Since(r.history.began)
	got, err := r.Store.Swap(ctx, next)
	r.history.add(r.client, begin, call{swap: true, version: next.Version}, got, err)
	return got, err
}

func (h *history) add(client int, begin time.Duration, in call, got session.Session, err error) {
	end := time.Since(h.began)
	stale := errors.Is(err, session.ErrStale)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && !stale {
		h.faults = append(h.faults, err)
		return
	}
	if in.swap && !stale {
		h.rotations++
	}
	h.operations = append(h.operations, porcupine.Operation{
		ClientId: client, Input: in, Call: begin.Nanoseconds(), Return: end.Nanoseconds(),
		Output: outcome{version: got.Version, generation: got.Generation, stale: stale},
	})
}

// check takes what was recorded since the last time, during which the session began as
// first and nobody is at it any more, and looks for one order that explains it all. It
// returns the session as it is then, and the number of rotations.
func (h *history) check(t *testing.T, first outcome) (last outcome, rotations int) {
	t.Helper()
	h.mu.Lock()
	operations, faults := h.operations, h.faults
	rotations, h.rotations = h.rotations, 0
	h.operations, h.faults = nil, nil
	h.total += len(operations)
	h.mu.Unlock()
	for _, fault := range faults {
		t.Errorf("the store: %v", fault)
	}
	if result := porcupine.CheckOperationsTimeout(model(first), operations, patience); result != porcupine.Ok {
		t.Errorf("no order explains these %d operations: %s: %+v", len(operations), result, operations)
	}
	last = first
	for _, operation := range operations {
		if out := operation.Output.(outcome); out.generation > last.generation { //nolint:forcetypeassert // we put it there
			last = out
		}
	}
	last.stale = false
	return last, rotations
}

// model is the contract of [session.Store] for loads and swaps of one session.
func model(first outcome) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return first },
		Step: func(state, input, output any) (bool, any) {
			is, in, out := state.(outcome), input.(call), output.(outcome) //nolint:forcetypeassert // we put them there
			unchanged := out.version == is.version && out.generation == is.generation
			switch {
			case !in.swap:
				return unchanged, is
			case in.version != is.version:
				return unchanged && out.stale, is
			default:
				swapped := !out.stale && out.version != is.version && out.generation == is.generation+1
				return swapped, outcome{version: out.version, generation: out.generation}
			}
		},
	}
}
