// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tokenward/tokenward/internal/session"
)

// orderRace has workers at three instances refresh as fast as they can.
func orderRace(t *testing.T, s *suite) {
	t.Helper()
	const sessions = 12
	stores := s.openMany(t, 3)
	for range 2 {
		var over atomic.Bool // set after the order has returned
		var started, group sync.WaitGroup
		var ids []session.ID
		for worker := range sessions {
			subject := []string{"alice", "bob"}[worker%2]
			found := s.storedOf(t, stores[worker%len(stores)], subject)
			ids = append(ids, found.ID)
			started.Add(1)
			group.Go(func() {
				store := stores[(worker+1)%len(stores)]
				var err error
				for n := 0; err == nil && found.Revoked == nil; n++ {
					tooLate := over.Load()
					found, err = store.Swap(t.Context(), s.rotated(t, found))
					if n == 0 {
						started.Done()
					}
					if tooLate && err == nil {
						t.Errorf("generation %d was swapped in after the order", found.Generation)
						return
					}
					if errors.Is(err, session.ErrStale) {
						err = nil
					}
				}
				if err != nil {
					t.Errorf("worker %d: %v", worker, err)
				}
			})
		}
		started.Wait()
		if n := s.revokeWhere(t, stores[1], s.everybody()); n != sessions {
			t.Errorf("%d of %d sessions were revoked", n, sessions)
		}
		over.Store(true)
		for i, store := range stores {
			for _, id := range ids {
				if found := load(t, store, id); found.Revoked == nil {
					t.Errorf("instance %d: generation %d lives on", i, found.Generation)
				}
			}
		}
		group.Wait()
	}
}

func orderAmongLogins(t *testing.T, s *suite) {
	t.Helper()
	stores := s.openMany(t, 3)
	var mu sync.Mutex
	var before []session.ID // whose login had returned before the order
	ordered := false
	var over atomic.Bool
	var started, group sync.WaitGroup
	for worker := range 9 {
		started.Add(1)
		group.Go(func() {
			for n := 0; n < 200 && (n <= 2 || !over.Load()); n++ {
				created := s.login()
				if err := stores[worker%len(stores)].Create(t.Context(), created); err != nil {
					t.Errorf("create: %v", err)
				}
				mu.Lock()
				if !ordered {
					before = append(before, created.ID)
				}
				mu.Unlock()
				if n == 2 {
					started.Done()
				}
			}
		})
	}
	started.Wait()
	mu.Lock()
	ordered = true
	mu.Unlock()
	n := s.revokeWhere(t, stores[1], s.everybody())
	over.Store(true)
	if n < len(before) {
		t.Errorf("%d sessions were revoked, there were at least %d", n, len(before))
	}
	for i, id := range before {
		if found := load(t, stores[i%len(stores)], id); found.Revoked == nil {
			t.Errorf("session %d of %d, from before the order, is live", i, len(before))
		}
	}
	group.Wait()
}

func twoOrders(t *testing.T, s *suite) {
	t.Helper()
	const sessions = 60
	stores := s.openMany(t, 3)
	var group sync.WaitGroup
	for i := range sessions {
		group.Go(func() {
			if err := stores[i%3].Create(t.Context(), s.login()); err != nil {
				t.Errorf("create: %v", err)
			}
		})
	}
	group.Wait()
	var sum atomic.Int64
	which, order := s.everybody(), s.order()
	for _, store := range stores {
		group.Go(func() {
			n, err := store.RevokeWhere(t.Context(), which, order)
			if err != nil {
				t.Errorf("revoke where: %v", err)
			}
			sum.Add(int64(n))
		})
	}
	group.Wait()
	if sum.Load() != sessions {
		t.Errorf("together they revoked %d, there are %d", sum.Load(), sessions)
	}
}
