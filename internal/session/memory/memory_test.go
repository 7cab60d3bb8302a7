// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"sync"
	"testing"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/session/storetest"
)

func TestStore(t *testing.T) {
	backings := sync.Map{}
	storetest.Run(t, storetest.Backend{
		Open: func(tb testing.TB, o storetest.Options) session.Store {
			tb.Helper()
			backing, _ := backings.LoadOrStore(o.Policy, memory.NewBacking())
			store := memory.New(o.Policy, memory.Options{Backing: backing.(*memory.Backing), MaxSessions: o.MaxSessions, Now: o.Now})
			tb.Cleanup(func() { _ = store.Close() })
			return store
		},
	})
}
