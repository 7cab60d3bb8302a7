// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users/password"
)

const rightPassword = "correct horse battery staple"

// timing compares logins that fail for different reasons: who logs in must not be able
// to tell by the time who exists.
func timing(t *testing.T, w *world) {
	t.Helper()
	uniform := []person{
		{"alice", password.Hash(rightPassword), false}, {"bob", password.Hash(rightPassword), true},
	}
	kinds := []attempt{{"no such user", "nobody"}, {"wrong password", "alice"}, {"disabled user", "bob"}}
	for _, kind := range []string{"secret", "PostgreSQL", "MariaDB"} {
		var m timings
		figure := "failed logins, users in " + kind
		held := w.must(t, figure, "1 answer, 1 hash of 1 cost", func(t *testing.T) string {
			t.Helper()
			m = tryLogins(t, w, kind, uniform, kinds)
			if len(m.costs) != 1 {
				t.Errorf("hashes of %d costs were computed", len(m.costs))
			}
			return fmt.Sprintf("%d logins", m.logins)
		})
		if held {
			w.time("the same, medians", "within 1 % of the hash time", m.String(), m.spread() < 0.01)
		}
	}
	cheap, err := bcrypt.GenerateFromPassword([]byte(rightPassword), 8)
	if err != nil {
		t.Fatal(err)
	}
	mixed := append(slices.Clone(uniform), person{"carol", password.Hash(rightPassword), false}, person{"dave", string(cheap), false})
	kinds = []attempt{{"no such user", "nobody"}, {"wrong password", "alice"}, {"wrong password, cheaper hash than most", "dave"}}
	for _, kind := range []string{"secret", "PostgreSQL"} {
		var m timings
		figure := "failed logins, hashes of two costs, users in " + kind
		held := w.must(t, figure, "1 answer, 1 hash", func(t *testing.T) string {
			t.Helper()
			m = tryLogins(t, w, kind, mixed, kinds)
			return fmt.Sprintf("%d logins", m.logins)
		})
		if held {
			w.note("the same, medians: who has a rarer cost shows", m.String())
		}
	}
}

// person is a user with a password.
type person struct {
	id, hash string
	disabled bool
}

// attempt is a kind of login that fails.
type attempt struct{ name, id string }

// timings of attempts, in their order.
type timings struct {
	names   []string
	medians []time.Duration
	hash    time.Duration // the median of a hash alone
	logins  int
	costs   map[password.Cost]int
}

// spread is the largest difference of two medians, as part of the hash time.
func (m timings) spread() float64 {
	if len(m.medians) == 0 {
		return 1
	}
	return float64(slices.Max(m.medians)-slices.Min(m.medians)) / float64(max(1, m.hash))
}

func (m timings) String() string {
	parts := make([]string, 0, len(m.names)+1)
	for i, name := range m.names {
		parts = append(parts, name+" "+fmt.Sprintf("%.2f ms", m.medians[i].Seconds()*1e3))
	}
	return strings.Join(append(parts, fmt.Sprintf("hash %.2f ms: %.1f %% apart", m.hash.Seconds()*1e3, 100*m.spread())), ", ")
}

// tryLogins makes the attempts by turns, each time in another order, so that whatever
// else the machine does falls on all of them alike.
func tryLogins(t *testing.T, w *world, kind string, all []person, kinds []attempt) timings {
	t.Helper()
	hashes := &hashObserver{costs: map[password.Cost]int{}}
	hashes.pool = password.NewPool(1, 0, hashes)
	i := anotherIssuer(t, w.store(t, "redis"), storetest.NewPolicyID(), w.keys[token.EdDSA], time.Now)
	i.policy.Users = w.peopleWithPasswords(t, kind, all, hashes)
	// Failures are counted as ever, but nobody's allowance ends.
	plenty := attempts.Limit{Burst: 1_000_000, Interval: time.Millisecond}
	i.policy.Attempts, i.policy.PerAccount, i.policy.PerAddress = i.policy.Sessions.(attempts.Counter), plenty, plenty //nolint:forcetypeassert // every store is one
	login := func(id, presented string) error {
		_, err := i.loginWith(w.ctx, map[string]string{"id": id, "password": presented})
		return err
	}
	for _, p := range all { // each user was seen before, and has the right password
		if err := login(p.id, rightPassword); (err == nil) == p.disabled {
			t.Fatalf("%s logs in: %v", p.id, err)
		}
	}
	hashes.reset()
	took, answers := make([][]time.Duration, len(kinds)), map[string]bool{}
	progress := w.every(5 * time.Second)
	for round := range w.scale.logins {
		w.interrupted(t)
		for turn := range kinds {
			at := (round*(1+round%2) + turn) % len(kinds)
			presented := "wrong"
			if kinds[at].name == "disabled user" {
				presented = rightPassword
			}
			began := time.Now()
			err := login(kinds[at].id, presented)
			took[at] = append(took[at], time.Since(began))
			if refusedWith(err) != token.CredentialsInvalid {
				t.Fatalf("%s: %v", kinds[at].name, err)
			}
			answers[err.Error()] = true
		}
		progress("%s: %d of %d logins of each kind", kind, round+1, w.scale.logins)
	}
	m := timings{logins: w.scale.logins * len(kinds), hash: percentile(hashes.times, 50), costs: hashes.costs}
	for at, attempt := range kinds {
		m.names, m.medians = append(m.names, attempt.name), append(m.medians, percentile(took[at], 50))
	}
	if len(answers) != 1 {
		t.Errorf("there are %d different answers: %v", len(answers), answers)
	}
	if len(hashes.times) != m.logins {
		t.Errorf("%d logins computed %d hashes", m.logins, len(hashes.times))
	}
	return m
}

// hashObserver is a pool of hashes with what it has computed.
type hashObserver struct {
	pool  *password.Pool
	mu    sync.Mutex
	times []time.Duration
	costs map[password.Cost]int
}

// Verify is what the sources ask.
func (o *hashObserver) Verify(ctx context.Context, hash password.Encoded, presented string) (bool, error) {
	o.mu.Lock()
	o.costs[hash.Cost()]++
	o.mu.Unlock()
	return o.pool.Verify(ctx, hash, presented)
}

// HashDone implements [password.Observer].
func (o *hashObserver) HashDone(took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.times = append(o.times, took)
}

// HashWaiting implements [password.Observer].
func (*hashObserver) HashWaiting(int) {}

// HashRefused implements [password.Observer].
func (*hashObserver) HashRefused() {}

func (o *hashObserver) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.times, o.costs = nil, map[password.Cost]int{}
}
