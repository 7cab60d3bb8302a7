// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/token"
)

// family is a session as all its clients together know it.
type family struct {
	mu     sync.Mutex
	tokens []held // of every generation that was answered, the newest last
	dead   bool   // an issuer has said so
}

type held struct {
	raw        string
	generation int64
}

// pick returns a token, mostly a young one, and what was known before it is presented.
func (f *family) pick(choose *rand.Rand) (presented held, newest int64, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := len(f.tokens) - 1
	i := last - choose.IntN(min(last, 3)+1)
	if choose.IntN(8) == 0 {
		i = choose.IntN(last + 1)
	}
	return f.tokens[i], f.tokens[last].generation, f.dead
}

func (f *family) got(h held) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.generation > f.tokens[len(f.tokens)-1].generation {
		f.tokens = append(f.tokens, h)
	}
}

func (f *family) died() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
}

// interleave has nine clients at three issuers present tokens of any generation at
// random while the time passes in steps. It returns how often one presented a token of
// two or more generations before what it knew to be issued.
func interleave(t *testing.T, w *world, store access, seed uint64) (tooOld int) {
	t.Helper()
	const clients, calls = 9, 12
	clock := storetest.NewClock()
	uid := storetest.NewPolicyID()
	var issuers []*issuer
	for range 3 {
		i, closeIssuer, err := newIssuer(store, uid, w.keys[token.EdDSA], clock.Now)
		if err != nil {
			t.Fatal(err)
		}
		defer closeIssuer() //nolint:revive,gocritic // at the end of this interleaving: there are many of them, and few connections
		issuers = append(issuers, i)
	}
	survives := seed%2 == 0
	if survives {
		for _, issuer := range issuers {
			issuer.policy.Session.OnReuse = session.OnReuseDeny
		}
	}
	first := issuers[0].mustLogin(w.ctx, t)
	f := &family{tokens: []held{{first.Raw, 1}}}
	passes := []time.Duration{0, 0, time.Second, grace / 2, ttl + leeway + time.Second}
	var mu sync.Mutex
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			choose := rand.New(rand.NewPCG(seed, uint64(client)))
			for range calls {
				clock.Advance(passes[choose.IntN(len(passes))])
				presented, newest, dead := f.pick(choose)
				issuer := issuers[choose.IntN(len(issuers))]
				answer, err := issuer.refresh(w.ctx, presented.raw)
				old := presented.generation <= newest-2
				if old {
					mu.Lock()
					tooOld++
					mu.Unlock()
				}
				switch reason := refusedWith(err); {
				case err == nil && old:
					t.Errorf("seed %d: generation %d was accepted after %d was out", seed, presented.generation, newest)
				case err == nil && dead:
					t.Errorf("seed %d: a dead session gave a token", seed)
				case err == nil:
					f.got(held{answer.Raw, issuer.claims(t, answer.Raw).Generation})
				case reason == token.SessionRevoked, reason == token.SessionUnknown && !survives:
					f.died() // and, when its tokens are all dead, is forgotten
				case reason != token.TokenReused:
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		})
	}
	group.Wait()
	return tooOld
}
