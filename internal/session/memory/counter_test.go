// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"sync"
	"testing"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/attempts/countertest"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
)

func TestCounter(t *testing.T) {
	backings := sync.Map{}
	backing := func(policy session.PolicyID) *Backing {
		found, _ := backings.LoadOrStore(policy, NewBacking())
		return found.(*Backing)
	}
	countertest.Run(t, countertest.Backend{
		Open: func(tb testing.TB, o storetest.Options) attempts.Counter {
			tb.Helper()
			store := New(o.Policy, Options{Backing: backing(o.Policy), MaxSessions: o.MaxSessions, Now: o.Now})
			tb.Cleanup(func() { _ = store.Close() })
			return store
		},
		Kept: func(_ testing.TB, o storetest.Options) int {
			d := backing(o.Policy).policy(o.Policy)
			d.mu.Lock()
			defer d.mu.Unlock()
			d.forget(o.Now())
			return len(d.whole)
		},
	})
}
