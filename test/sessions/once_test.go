// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/exchange"
)

// exactlyOnce has many requests bring one expired token to three issuers at once, round
// after round: one rotates the session, and all get the same token.
func exactlyOnce(t *testing.T, w *world) {
	t.Helper()
	for _, store := range w.stores {
		figure := fmt.Sprintf("%d requests with one expired token, 3 issuers, %s", w.scale.calls, store.Kind)
		w.must(t, figure, "1 rotation, 1 token, all succeed, linearizable", func(t *testing.T) string {
			t.Helper()
			done, operations := 0, 0
			progress := w.every(5 * time.Second)
			for i, algorithm := range algorithms {
				mine := w.scale.once / len(algorithms)
				if i < w.scale.once%len(algorithms) {
					mine++
				}
				operations += rotateOnce(t, w, store, algorithm, mine, func() {
					done++
					progress("%s: %d of %d rounds", store.Kind, done, w.scale.once)
				})
			}
			return fmt.Sprintf("%d of %d rounds, %d store operations", done, w.scale.once, operations)
		})
	}
}

// rotateOnce returns how many operations reached the store.
func rotateOnce(t *testing.T, w *world, store access, algorithm token.Algorithm, rounds int, passed func()) int {
	t.Helper()
	clock := storetest.NewClock()
	issuers := newIssuers(t, store, w.keys[algorithm], clock.Now, 3)
	h := &history{began: time.Now()}
	current := issuers[0].mustLogin(w.ctx, t)
	stored, err := issuers[0].policy.Sessions.Load(w.ctx, current.Session)
	if err != nil {
		t.Fatal(err)
	}
	is := outcome{version: stored.Version, generation: stored.Generation}
	for i, issuer := range issuers {
		issuer.policy.Sessions = recorder{Store: issuer.policy.Sessions, client: i, history: h}
	}
	for range rounds {
		w.interrupted(t)
		clock.Advance(ttl + leeway + time.Second)
		next := present(t, w, issuers, current.Raw)
		was := is.generation
		var rotations int
		if is, rotations = h.check(t, is); rotations != 1 || is.generation != was+1 {
			t.Errorf("%s: %d rotations took generation %d to %d", algorithm, rotations, was, is.generation)
		}
		if t.Failed() {
			t.FailNow()
		}
		current = next
		passed()
	}
	if rounds > 0 && issuers[0].claims(t, current.Raw).Generation != is.generation {
		t.Errorf("%s: the last token is not of generation %d", algorithm, is.generation)
	}
	return h.total
}

// present brings a token many times at once and returns the one that came of it.
func present(t *testing.T, w *world, issuers []*issuer, raw string) exchange.Token {
	t.Helper()
	tokens := make([]exchange.Token, w.scale.calls)
	errs := make([]error, w.scale.calls)
	begin := make(chan struct{})
	var group sync.WaitGroup
	for i := range tokens {
		group.Go(func() {
			<-begin
			tokens[i], errs[i] = issuers[i%len(issuers)].refresh(w.ctx, raw)
		})
	}
	close(begin)
	group.Wait()
	rotated := 0
	for i := range tokens {
		if errs[i] != nil {
			t.Fatalf("request %d: %v", i, errs[i])
		}
		if !issuers[0].same(t, tokens[i].Raw, tokens[0].Raw) {
			t.Fatalf("request %d got another token than request 0", i)
		}
		if tokens[i].How == exchange.Rotated {
			rotated++
		}
	}
	if rotated != 1 {
		t.Errorf("%d requests rotated the session", rotated)
	}
	return tokens[0]
}
