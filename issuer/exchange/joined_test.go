// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/exchange"
)

// A flight goes by the session as it was when the flight began. Whoever comes later with
// the same token may be too late for its answer.
func TestACallDoesNotJoinAnAnswerThatIsOlderThanTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, token.EdDSA, 2)
		first := f.login(t)
		f.expire()
		second, err := f.issuers[1].Refresh(t.Context(), f.policy, first.Raw)
		if err != nil {
			t.Fatal(err)
		}

		loaded, goOn := make(chan struct{}), make(chan struct{})
		var held atomic.Bool
		hook := func() {
			if held.CompareAndSwap(false, true) {
				close(loaded)
				<-goOn
			}
		}
		f.store.afterLoad.Store(&hook)
		var calls sync.WaitGroup
		var early, late exchange.Token
		var errEarly, errLate error
		calls.Go(func() { early, errEarly = f.issuers[0].Refresh(t.Context(), f.policy, first.Raw) })
		<-loaded // in the grace: the early one is to get the second token
		if _, err := f.issuers[1].Refresh(t.Context(), f.policy, second.Raw); err != nil {
			t.Fatal(err)
		}
		calls.Go(func() { late, errLate = f.issuers[0].Refresh(t.Context(), f.policy, first.Raw) })
		synctest.Wait()
		close(goOn)
		calls.Wait()

		if errEarly != nil || early.Raw != second.Raw {
			t.Errorf("the early call: %v", errEarly)
		}
		wantReason(t, errLate, token.TokenReused, 0)
		if late.Raw != "" {
			t.Error("a token that is two generations old bought one")
		}
	})
}
