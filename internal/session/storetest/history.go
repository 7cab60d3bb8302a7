// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// call and outcome are one operation on one session as its caller saw it.
type call struct {
	session session.ID
	kind    string // load, swap or revoke
	version string // of the swap
}

type outcome struct {
	version string
	revoked bool
	stale   bool
}

// register is what a session comes to for everyone: its version, and whether it lives.
type register struct {
	version string
	revoked bool
}

// linearizable has clients at several instances load, swap and revoke a few sessions
// at random, and looks for one order that explains everything they saw.
func linearizable(t *testing.T, s *suite) {
	t.Helper()
	const clients, steps, sessions = 12, 25, 6
	stores := s.openMany(t, 3)
	initial := map[session.ID]register{}
	var ids []session.ID
	for range sessions {
		found := s.stored(t, stores[0])
		ids = append(ids, found.ID)
		initial[found.ID] = register{version: found.Version}
	}

	var mu sync.Mutex
	var history []porcupine.Operation
	started := time.Now()
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			store := stores[client%len(stores)]
			choose := rand.New(rand.NewPCG(uint64(client), 7)) //nolint:gosec // a test's choice, the same each time
			seen := map[session.ID]session.Session{}
			for range steps {
				id := ids[choose.IntN(len(ids))]
				in := call{session: id, kind: "load"}
				last, known := seen[id]
				switch n := choose.IntN(100); {
				case n < 3:
					in.kind = "revoke"
				case n < 60 && known && last.Revoked == nil:
					in.kind, in.version = "swap", last.Version
				}
				begin := time.Since(started).Nanoseconds()
				got, err := s.perform(t, store, in, last)
				end := time.Since(started).Nanoseconds()
				stale := errors.Is(err, session.ErrStale)
				if err != nil && !stale {
					t.Errorf("%s: %v", in.kind, err)
					return
				}
				seen[id] = got
				mu.Lock()
				history = append(history, porcupine.Operation{
					ClientId: client, Input: in, Call: begin, Return: end,
					Output: outcome{version: got.Version, revoked: got.Revoked != nil, stale: stale},
				})
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	if result := porcupine.CheckOperationsTimeout(model(initial), history, patience); result != porcupine.Ok {
		t.Errorf("%d operations: %s", len(history), result)
	}
}

func (s *suite) perform(t *testing.T, store session.Store, in call, last session.Session) (session.Session, error) {
	t.Helper()
	switch in.kind {
	case "swap":
		return store.Swap(t.Context(), s.rotated(t, last))
	case "revoke":
		return store.Swap(t.Context(), session.Session{ID: in.session, Policy: s.policy}.Revoke(token.SessionRevoked, s.clock.Now()))
	default:
		return store.Load(t.Context(), in.session)
	}
}

// model is the contract of Load and Swap for one session.
func model(initial map[session.ID]register) porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			bySession := map[session.ID][]porcupine.Operation{}
			for _, op := range history {
				id := op.Input.(call).session //nolint:forcetypeassert // we put it there
				bySession[id] = append(bySession[id], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range bySession {
				parts = append(parts, part)
			}
			return parts
		},
		// The register of a partition is only known with its first operation.
		Init: func() any { return (*register)(nil) },
		Step: func(state, input, output any) (bool, any) {
			in, out := input.(call), output.(outcome) //nolint:forcetypeassert // we put them there
			now := initial[in.session]
			if r := state.(*register); r != nil { //nolint:forcetypeassert // of Init and Step
				now = *r
			}
			legal, next := step(now, in, out)
			return legal, &next
		},
		Equal: func(a, b any) bool {
			x, y := a.(*register), b.(*register) //nolint:forcetypeassert // of Init and Step
			return x == y || x != nil && y != nil && *x == *y
		},
	}
}

func step(now register, in call, out outcome) (bool, register) {
	is := out.version == now.version && out.revoked == now.revoked
	switch {
	case in.kind == "load":
		return is, now
	case in.kind == "revoke" && now.revoked:
		return is && !out.stale, now
	case in.kind == "revoke":
		return out.revoked && !out.stale && out.version != now.version, register{version: out.version, revoked: true}
	case now.revoked || in.version != now.version:
		return is && out.stale, now
	default:
		return !out.stale && !out.revoked && out.version != now.version, register{version: out.version}
	}
}
