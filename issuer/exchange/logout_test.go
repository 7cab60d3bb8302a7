// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"errors"
	"testing"

	"github.com/tokenward/tokenward/internal/token"
)

func TestLogoutEndsTheSessionAndMayBeRepeated(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	f.policy.RefuseExpired = true // an expired token may log out under any policy
	first := f.login(t)
	f.expire()
	for range 3 {
		if err := f.issuers[0].Logout(t.Context(), f.policy, first.Raw); err != nil {
			t.Fatal(err)
		}
	}
	f.policy.RefuseExpired = false
	_, err := f.refresh(t, first.Raw)
	wantReason(t, err, token.SessionRevoked, 0)
	if got := f.store.swapped.Load(); got != 1 {
		t.Errorf("%d writes for one logout", got)
	}
}

func TestAnOldTokenMayLogOut(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	f.expire()
	second := f.mustRefresh(t, first.Raw)
	if err := f.issuers[0].Logout(t.Context(), f.policy, first.Raw); err != nil {
		t.Fatal(err)
	}
	_, err := f.refresh(t, second.Raw)
	wantReason(t, err, token.SessionRevoked, 0)
}

func TestLogoutOfASessionThatIsGoneSucceeds(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	f.pass(48 * 3600e9)
	if err := f.issuers[0].Logout(t.Context(), f.policy, first.Raw); err != nil {
		t.Error(err)
	}
}

func TestLogoutDuringAnOutageSaysSo(t *testing.T) {
	f := newFixture(t, token.ES256, 1)
	first := f.login(t)
	outage := errors.New("connection refused")
	f.store.fail.Store(&outage)
	wantReason(t, f.issuers[0].Logout(t.Context(), f.policy, first.Raw), token.IssuerUnavailable, 503)
	if f.observer.failures.Load() != 1 {
		t.Error("the failure was not counted")
	}
}

// A revocation wins every race: it comes between the load and the swap of a refresh.
func TestALogoutDuringARefreshWins(t *testing.T) {
	f := newFixture(t, token.ES256, 2)
	first := f.login(t)
	f.expire()
	hook := func() {
		f.store.afterLoad.Store(nil)
		if err := f.issuers[1].Logout(t.Context(), f.policy, first.Raw); err != nil {
			t.Error(err)
		}
	}
	f.store.afterLoad.Store(&hook)
	got, err := f.refresh(t, first.Raw)
	wantReason(t, err, token.SessionRevoked, 0)
	if got.Raw != "" {
		t.Error("a token was handed out")
	}
}
