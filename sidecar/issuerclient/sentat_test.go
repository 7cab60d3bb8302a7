// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuerclient

import (
	"encoding/json"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

func TestARefreshSaysWhenItWasSentByTheIssuersClock(t *testing.T) {
	var (
		issuer = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) // and no clock of ours is near that
		asked  []string
		lost   bool
		unable bool
	)
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get(protocol.SentAtHeader))
		if lost {
			lost = false
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Date", issuer.Format(http.TimeFormat))
		if unable {
			unable = false
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(protocol.NewProblem(http.StatusServiceUnavailable, token.IssuerUnavailable, ""))
			return
		}
		granted(w, r)
	})
	clock, stood := time.Now(), time.Duration(0)
	c.Now = func() time.Time { return clock }
	c.StoodStill = func() time.Duration { return stood }
	refresh := func() {
		t.Helper()
		if _, err := c.refresh(t.Context(), "old"); err != nil {
			t.Fatal(err)
		}
	}
	at := func(d time.Duration) string { return strconv.FormatInt(issuer.Add(d).UnixMilli(), 10) }

	refresh() // nobody has said yet what time it is
	clock = clock.Add(90 * time.Second)
	refresh()
	clock, stood = clock.Add(7*time.Second), 30*time.Second
	refresh()
	stood, lost = 0, true
	clock = clock.Add(2 * time.Second)
	refresh() // made again, and sent when it was sent first
	// Our clock was wrong by an hour, which the answer to the first attempt shows.
	clock, unable = clock.Add(-time.Hour), true
	refresh()
	for i, want := range []string{"", at(90 * time.Second), at(7*time.Second - 30*time.Second), at(2 * time.Second), at(2 * time.Second), at(-time.Hour), at(0)} {
		if asked[i] != want {
			t.Errorf("call %d was sent at %q, want %q", i, asked[i], want)
		}
	}
	if _, err := c.Login(t.Context(), []byte("{}"), "application/json", ""); err != nil || asked[len(asked)-1] != "" {
		t.Errorf("a login was sent at %q: %v", asked[len(asked)-1], err)
	}
}
