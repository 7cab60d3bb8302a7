// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/flight"
	"github.com/tokenward/tokenward/internal/token"
)

const (
	// fetchEvery is the least time between two requests for keys (design section 5).
	fetchEvery = time.Second
	// rememberMiss is how long a key that the issuer did not know is not asked for again.
	rememberMiss = 10 * time.Second
	maxMisses    = 1024
	// maxWaiting bounds the requests that wait for keys, and so what a flood of
	// made-up key ids can hold.
	maxWaiting = 64
)

// KeyFinder asks the issuer for keys that nobody here knows, at most once per second
// whatever the number of requests and key ids.
type KeyFinder struct {
	Fetch func(context.Context) (*token.KeySet, error)
	// Offer takes what was fetched into force, unless what is in force is newer.
	Offer func(*token.KeySet)
	Now   func() time.Time

	flights flight.Group[struct{}, *token.KeySet]
	mu      sync.Mutex
	last    time.Time
	misses  map[string]time.Time
	waiting int
}

// Find has the issuer asked for a key. True means that keys were fetched which hold
// it; false that the issuer does not know it. Errors wrap [ErrUnavailable]: whether
// there is such a key is not known.
func (f *KeyFinder) Find(ctx context.Context, kid string) (bool, error) {
	if f.missed(kid) {
		return false, nil
	}
	if !f.enter() {
		return false, ErrUnavailable
	}
	defer f.leave()
	keys, _, err := f.flights.Do(ctx, struct{}{}, fetchEvery+callTimeout, f.fetch)
	if err != nil {
		return false, err
	}
	if _, ok := keys.Lookup(kid); ok {
		return true, nil
	}
	f.miss(kid)
	return false, nil
}

// fetch waits for its second, rather than refusing a key that may be there.
func (f *KeyFinder) fetch(ctx context.Context) (*token.KeySet, error) {
	f.mu.Lock()
	wait := f.last.Add(fetchEvery).Sub(f.Now())
	f.mu.Unlock()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ErrUnavailable
		}
	}
	f.mu.Lock()
	f.last = f.Now()
	f.mu.Unlock()
	keys, err := f.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	f.Offer(keys)
	return keys, nil
}

func (f *KeyFinder) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting >= maxWaiting {
		return false
	}
	f.waiting++
	return true
}

func (f *KeyFinder) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting--
}

func (f *KeyFinder) missed(kid string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Now().Before(f.misses[kid])
}

func (f *KeyFinder) miss(kid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.misses == nil || len(f.misses) >= maxMisses {
		f.misses = map[string]time.Time{}
	}
	f.misses[kid] = f.Now().Add(rememberMiss)
}
