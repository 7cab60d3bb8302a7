// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/token"
)

// theft presents tokens that were used: after the grace the session is dead for thief
// and owner, and a token two generations old buys nothing, whatever happens at once.
func theft(t *testing.T, w *world) {
	t.Helper()
	for _, store := range w.stores {
		var longest time.Duration
		held := w.must(t, "replay after the grace, "+store.Kind, "dead at 3 issuers and on 3 streams", func(t *testing.T) string {
			t.Helper()
			longest = steal(t, w, store)
			return fmt.Sprintf("%d of %d", w.scale.thefts, w.scale.thefts)
		})
		if held {
			w.time("the same, until the last has it", "< 1 s", milliseconds(longest), longest < time.Second)
		}
	}
	for _, store := range w.stores {
		w.must(t, "generation n-2 in random interleavings, "+store.Kind, "never accepted", func(t *testing.T) string {
			t.Helper()
			tried := 0
			for n := range w.scale.interleavings {
				w.interrupted(t)
				tried += interleave(t, w, store, uint64(n))
			}
			if tried == 0 {
				t.Error("none of the interleavings presented a token that old")
			}
			return fmt.Sprintf("0 of %d accepted, %d interleavings", tried, w.scale.interleavings)
		})
	}
}

// steal returns the longest time from the thief's answer until every issuer had
// refused the owner and every stream had told of the revocation.
func steal(t *testing.T, w *world, store access) (longest time.Duration) {
	t.Helper()
	clock := storetest.NewClock()
	issuers := newIssuers(t, store, w.keys[token.EdDSA], clock.Now, 3)
	told := make([]*listener, len(issuers))
	for i, issuer := range issuers {
		told[i] = listen(w.ctx, t, issuer.policy.Sessions)
	}
	for n := range w.scale.thefts {
		w.interrupted(t)
		stolen := issuers[0].mustLogin(w.ctx, t)
		clock.Advance(ttl + leeway + time.Second)
		owners, err := issuers[n%3].refresh(w.ctx, stolen.Raw)
		if err != nil {
			t.Fatal(err)
		}
		clock.Advance(grace + time.Second)
		if _, err := issuers[(n+1)%3].refresh(w.ctx, stolen.Raw); refusedWith(err) != token.TokenReused {
			t.Fatalf("the thief got: %v", err)
		}
		began := time.Now()
		var group sync.WaitGroup
		for i, issuer := range issuers {
			group.Go(func() {
				if _, err := issuer.refresh(w.ctx, owners.Raw); refusedWith(err) != token.SessionRevoked {
					t.Errorf("issuer %d, to the owner: %v", i, err)
				}
			})
			group.Go(func() { told[i].await(w.ctx, t, owners.Session) })
		}
		group.Wait()
		longest = max(longest, time.Since(began))
	}
	return longest
}

// listener follows the revocations of one instance.
type listener struct {
	mu   sync.Mutex
	seen map[session.ID]bool
	more chan struct{} // holds one
}

func listen(ctx context.Context, t *testing.T, store session.Store) *listener {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	events, err := store.Revocations(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{seen: map[session.ID]bool{}, more: make(chan struct{}, 1)}
	synced := make(chan struct{})
	go func() {
		for e := range events {
			if e.Synced {
				close(synced)
				continue
			}
			l.mu.Lock()
			l.seen[e.ID] = true
			l.mu.Unlock()
			select {
			case l.more <- struct{}{}:
			default:
			}
		}
	}()
	select {
	case <-synced:
	case <-time.After(patience):
		t.Fatal("a stream of revocations did not begin")
	}
	return l
}

func (l *listener) await(ctx context.Context, t *testing.T, id session.ID) {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		seen := l.seen[id]
		l.mu.Unlock()
		if seen {
			return
		}
		select {
		case <-l.more:
		case <-ctx.Done():
			return
		case <-deadline:
			t.Error("a stream does not tell of the revocation")
			return
		}
	}
}
