// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
)

// dying makes an issuer that dies with its first calls at hand, and is replaced by one
// that answers.
func dying(t *testing.T, deaths int32) (*Client, *atomic.Int32) {
	t.Helper()
	var calls atomic.Int32
	return newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) <= deaths {
			panic(http.ErrAbortHandler)
		}
		_ = json.NewEncoder(w).Encode(protocol.TokenResponse{AccessToken: "new"})
	}), &calls
}

func TestARefreshOutlivesTheIssuerThatItWasSentTo(t *testing.T) {
	c, calls := dying(t, 3)
	response, err := c.refresh(t.Context(), "old")
	if err != nil || response.AccessToken != "new" || calls.Load() != 4 {
		t.Fatalf("token %q after %d calls: %v", response.AccessToken, calls.Load(), err)
	}
}

func TestALogoutOutlivesTheIssuerThatItWasSentTo(t *testing.T) {
	c, calls := dying(t, 3)
	if err := c.Logout(t.Context(), "token"); err != nil || calls.Load() != 4 {
		t.Fatalf("%d calls: %v", calls.Load(), err)
	}
}

func TestALoginThatWasSentIsNotSentAgain(t *testing.T) {
	c, calls := dying(t, 1)
	if _, err := c.Login(t.Context(), []byte("{}"), "application/json", "192.0.2.1"); !errors.Is(err, ErrUnavailable) || calls.Load() != 1 {
		t.Fatalf("%d calls: %v; an attempt would count twice", calls.Load(), err)
	}
}

// Who gives up must not use up the time in which the others are made again.
func TestACallerThatGivesUpBeginsNoOutage(t *testing.T) {
	c, calls := dying(t, 1)
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := c.Login(gone, []byte("{}"), "application/json", ""); !errors.Is(err, context.Canceled) || c.outage != (outage{}) || calls.Load() != 0 {
		t.Errorf("%v, %d calls, an outage %+v", err, calls.Load(), c.outage)
	}
}

func TestALongOutageIsToldAtOnce(t *testing.T) {
	c, calls := dying(t, 1_000_000)
	clock := time.Now()
	c.Now = func() time.Time { clock = clock.Add(time.Second / 2); return clock }
	if _, err := c.refresh(t.Context(), "old"); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	first := calls.Load()
	if first < 2 || first > 8 {
		t.Errorf("%d calls in the first %s", first, tryFor)
	}
	if _, err := c.refresh(t.Context(), "old"); err == nil || calls.Load() != first+1 {
		t.Errorf("%d calls later in the outage, want one", calls.Load()-first)
	}
	clock = clock.Add(2 * calm)
	if _, err := c.refresh(t.Context(), "old"); err == nil || calls.Load() < first+3 {
		t.Errorf("%d calls in the next outage, want several", calls.Load()-first-1)
	}
}
