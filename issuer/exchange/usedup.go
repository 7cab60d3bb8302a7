// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"maps"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
)

const (
	// rememberUsedUp is for how long a store is not asked again about an allowance that
	// it has called used up. A caller that is told to wait is told to wait for a second
	// at least.
	rememberUsedUp = time.Second
	// mostUsedUp bounds what is remembered; beyond it the store is asked.
	mostUsedUp = 4096
)

// usedUp remembers for a moment which allowances are used up, so that a flood of
// logins that are refused anyway is no flood on the store. The zero value is ready to use.
type usedUp struct {
	mu   sync.Mutex
	seen map[allowanceKey]usedUpEntry
}

// allowanceKey has the limit too: one that was changed is another allowance.
type allowanceKey struct {
	key   attempts.Key
	limit attempts.Limit
}

type usedUpEntry struct {
	seen time.Time
	// left is when there will be something again.
	left time.Time
}

func (e usedUpEntry) fresh(now time.Time) bool {
	age := now.Sub(e.seen)
	return age >= 0 && age < rememberUsedUp && now.Before(e.left)
}

// wait is how long until something is left; 0 when the store has to be asked.
func (u *usedUp) wait(a attempt, now time.Time) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e := u.seen[allowanceKey{a.key, a.limit}]; e.fresh(now) {
		return e.left.Sub(now)
	}
	return 0
}

func (u *usedUp) remember(a attempt, wait time.Duration, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.seen == nil {
		u.seen = map[allowanceKey]usedUpEntry{}
	}
	if len(u.seen) >= mostUsedUp {
		maps.DeleteFunc(u.seen, func(_ allowanceKey, e usedUpEntry) bool { return !e.fresh(now) })
	}
	if len(u.seen) < mostUsedUp {
		u.seen[allowanceKey{a.key, a.limit}] = usedUpEntry{seen: now, left: now.Add(wait)}
	}
}

func (u *usedUp) forget(a attempt) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.seen, allowanceKey{a.key, a.limit})
}
