// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
		second, err := f.issuers[1].Refresh(t.Context(), f.policy, first.Raw, time.Time{})
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
		calls.Go(func() { early, errEarly = f.issuers[0].Refresh(t.Context(), f.policy, first.Raw, time.Time{}) })
		<-loaded // in the grace: the early one is to get the second token
		if _, err := f.issuers[1].Refresh(t.Context(), f.policy, second.Raw, time.Time{}); err != nil {
			t.Fatal(err)
		}
		calls.Go(func() { late, errLate = f.issuers[0].Refresh(t.Context(), f.policy, first.Raw, time.Time{}) })
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

// Two issuers are asked at once. The one that loses takes longer to look the user up than
// the grace is long: its caller has lost a race, and is no thief.
func TestWhoLosesARaceIsNoThiefHoweverLongItTook(t *testing.T) {
	tests := map[string]struct {
		// meanwhile is what happens to the session after the first rotation.
		meanwhile func(t *testing.T, f *fixture, second exchange.Token)
		reason    token.Reason
	}{
		"it gets the winner's token": {meanwhile: func(*testing.T, *fixture, exchange.Token) {}},
		"it is denied and nobody hurt when the winner has gone on": {
			meanwhile: func(t *testing.T, f *fixture, second exchange.Token) {
				t.Helper()
				if _, err := f.issuers[1].Refresh(t.Context(), f.policy, second.Raw, time.Time{}); err != nil {
					t.Error(err)
				}
			},
			reason: token.TokenReused,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, token.EdDSA, 2)
			first := f.login(t)
			f.expire()
			var won exchange.Token
			var held atomic.Bool
			hook := func() {
				if !held.CompareAndSwap(false, true) {
					return
				}
				var err error
				if won, err = f.issuers[1].Refresh(t.Context(), f.policy, first.Raw, time.Time{}); err != nil {
					t.Error(err)
				}
				test.meanwhile(t, f, won)
				f.pass(grace + time.Second)
			}
			f.store.afterLoad.Store(&hook)
			lost, err := f.issuers[0].Refresh(t.Context(), f.policy, first.Raw, time.Time{})
			if test.reason != "" {
				wantReason(t, err, test.reason, 0)
			} else if err != nil || lost.Raw != won.Raw {
				t.Errorf("the loser: %v", err)
			}
			if f.stored(t, won.Session).Revoked != nil {
				t.Error("the session was revoked")
			}
		})
	}
}
