// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The figure of design section 4: however many requests carry one expired token, over
// however many issuers, one rotates and all get the same token. Run it with -count=10
// for a thousand rounds.
func TestTwoHundredRefreshesOverThreeIssuersAreOneRotation(t *testing.T) {
	const issuers, calls = 3, 200
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	f := newFixture(t, token.EdDSA, issuers)
	f.policy.Session.AbsoluteTimeout = 1000 * time.Hour
	current := f.login(t)
	lost := int32(0)
	for round := range rounds {
		f.expire()
		before := f.store.swapped.Load()
		tokens := make([]exchange.Token, calls)
		errs := make([]error, calls)
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for i := range calls {
			wg.Go(func() {
				<-begin
				tokens[i], errs[i] = f.issuers[i%issuers].Refresh(t.Context(), f.policy, current.Raw, time.Time{})
			})
		}
		close(begin)
		wg.Wait()
		rotated := 0
		for i := range calls {
			if errs[i] != nil {
				t.Fatalf("round %d, call %d: %v", round, i, errs[i])
			}
			if tokens[i].Raw != tokens[0].Raw {
				t.Fatalf("round %d: two tokens", round)
			}
			if tokens[i].How == exchange.Rotated {
				rotated++
			}
		}
		if swapped := f.store.swapped.Load() - before; swapped != 1 || rotated != 1 {
			t.Fatalf("round %d: %d rotations in the store, %d calls rotated", round, swapped, rotated)
		}
		current = tokens[0]
		lost = f.store.stale.Load()
	}
	if claims := f.claims(t, current.Raw); claims.Generation != int64(rounds)+1 {
		t.Errorf("generation %d after %d rounds", claims.Generation, rounds)
	}
	t.Logf("%d rounds, %d lost swaps", rounds, lost)
}
