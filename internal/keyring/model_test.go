// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tokenward/tokenward/internal/token"
)

// model knows what must hold, from the outside: it sees time as it really passes,
// while the manager's clock may step back.
type model struct {
	ring *Ring
	plan Plan
	real time.Time
	behind,
	minBefore time.Duration

	imports []*token.PrivateKey
	seen    map[string]*history
	lost    bool
}

// history is what happened to one key in real time.
type history struct {
	sample     string    // a token that it signed
	lastSigned time.Time // until when it may have signed
	retention  time.Duration
	known      time.Time // since when verifiers could know it
	gone       bool
}

func (m *model) verifier(t *rapid.T) *token.Verifier {
	set, err := m.ring.KeySet()
	if err != nil {
		t.Fatalf("key set: %v", err)
	}
	return &token.Verifier{Keys: set, Issuer: "i", Audiences: []string{"a"}}
}

func sign(t *rapid.T, key *token.PrivateKey) string {
	raw, err := key.Sign(token.Claims{
		Issuer: "i", Subject: "s", Audience: []string{"a"}, ExpiresAt: start, IssuedAt: start,
		ID: "j", SessionID: "s", ClientID: "c",
	})
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return raw
}

// change draws what users, clocks and accidents do between two steps.
func (m *model) change(t *rapid.T) {
	switch rapid.SampledFrom([]string{"time", "time", "time", "time", "back", "rotate", "plan", "algorithm", "import", "revoke", "unrevoke", "lose", "broken"}).Draw(t, "what") {
	case "time":
		m.real = m.real.Add(time.Duration(rapid.Int64Range(0, int64(8*time.Hour)).Draw(t, "passed")))
	case "back":
		m.behind += rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Minute, 2 * time.Hour, 1000 * time.Hour}).Draw(t, "step back")
	case "rotate":
		m.plan.RotateRequest = fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "request"))
	case "plan":
		m.plan.Interval = time.Duration(rapid.Int64Range(0, 20).Draw(t, "interval")) * time.Hour
		m.plan.PublishBefore = time.Duration(rapid.Int64Range(3, 120).Draw(t, "publishBefore")) * time.Minute
		m.plan.Retention = time.Duration(rapid.Int64Range(0, 40).Draw(t, "retention")) * time.Hour
		m.minBefore = min(m.minBefore, m.plan.PublishBefore)
	case "algorithm":
		m.plan.Algorithm = rapid.SampledFrom([]token.Algorithm{token.EdDSA, token.ES256}).Draw(t, "algorithm")
	case "import":
		m.plan.Import = rapid.SampledFrom(append(m.imports, nil)).Draw(t, "import")
	case "revoke":
		if len(m.ring.Keys) > 0 {
			m.plan.RevokedKeyIDs = append(m.plan.RevokedKeyIDs, rapid.SampledFrom(m.ring.Keys).Draw(t, "revoked").Public.ID)
		}
	case "unrevoke":
		m.plan.RevokedKeyIDs = nil
	case "lose":
		record, err := m.ring.MarshalPublic()
		if err != nil {
			t.Fatalf("write: %v", err)
		}
		if m.ring, err = Parse(record); err != nil {
			t.Fatalf("read: %v", err)
		}
		m.lost = true
	case "broken":
		m.plan.Generate = rapid.SampledFrom([]func(token.Algorithm, int) (*token.PrivateKey, error){
			nil, token.GenerateKey, token.GenerateKey,
			func(token.Algorithm, int) (*token.PrivateKey, error) { return nil, errors.New("broken") },
		}).Draw(t, "generator")
	}
}

// advance does one step and holds it against everything that must be true of a step alone.
func (m *model) advance(t *rapid.T) error {
	m.plan.Now = m.real.Add(-m.behind)
	before := m.ring
	written := write(t, before)
	next, events, wait, err := Advance(before, m.plan)
	if write(t, before) != written {
		t.Fatal("the ring that was given has changed")
	}
	changed := !slices.Equal(ids(before), ids(next))
	switch {
	case !changed && next.Version != before.Version:
		t.Fatalf("version %d became %d, and no key changed", before.Version, next.Version)
	case changed && next.Version <= before.Version:
		t.Fatalf("version %d became %d, and keys changed", before.Version, next.Version)
	case changed && next.Version != max(before.Version+1, m.plan.Now.Unix()):
		t.Fatalf("version %d became %d", before.Version, next.Version)
	case changed && len(events) == 0:
		t.Fatal("keys changed, and nothing is said")
	}
	if err == nil {
		m.quiet(t, next, wait)
	}
	m.ring = next
	return err
}

// quiet says that a step is complete: nothing more happens before its recheck is due.
func (m *model) quiet(t *rapid.T, next *Ring, wait time.Duration) {
	at := []time.Duration{0}
	if wait > time.Second {
		at = append(at, wait-1)
	}
	if wait == 0 {
		at = append(at, 100000*time.Hour)
	}
	for _, later := range at {
		plan := m.plan
		plan.Now = plan.Now.Add(later)
		again, events, _, err := Advance(next, plan)
		if err != nil || len(events) > 0 || write(t, again) != write(t, next) {
			t.Fatalf("after %v of %v more happens: %v, %v", later, wait, events, err)
		}
	}
}

// check holds the ring against the past.
func (m *model) check(t *rapid.T, previous string, err error) {
	signers, published := 0, 0
	for _, key := range m.ring.Keys {
		switch key.State {
		case Active:
			signers++
			m.checkSigner(t, key, previous)
		case Published:
			published++
		case Retired:
		}
		h := m.history(key.Public.ID)
		h.retention = max(h.retention, m.plan.Retention)
		if h.gone {
			t.Fatalf("key %s came back", key.Public.ID)
		}
	}
	if signers > 1 || published > 1 || (signers == 0 && err == nil) {
		t.Fatalf("%d active and %d published keys, %v", signers, published, err)
	}
	v := m.verifier(t)
	for id, h := range m.seen {
		if h.sample == "" {
			continue
		}
		_, err := v.VerifyForRefresh(h.sample, start)
		revoked := slices.Contains(m.plan.RevokedKeyIDs, id)
		switch {
		case revoked && err == nil:
			t.Fatalf("key %s is revoked and verifies", id)
		case h.gone && err == nil:
			t.Fatalf("key %s is removed and verifies", id)
		case !h.gone && !revoked && err != nil && m.real.Before(h.lastSigned.Add(h.retention)):
			t.Fatalf("a token of key %s may still be of use until %v: %v", id, h.lastSigned.Add(h.retention), err)
		}
		h.gone = h.gone || err != nil
	}
}

func (m *model) checkSigner(t *rapid.T, key Key, previous string) {
	id := key.Public.ID
	h := m.history(id)
	if key.Private == nil {
		t.Fatalf("key %s is active without its private half", id)
	}
	if h.sample == "" {
		h.sample = sign(t, key.Private)
		// A key that takes over from one that could go on must have been known for a while.
		if previous != "" && m.ring.has(previous) && !m.lost && m.real.Sub(h.known) < m.minBefore {
			t.Fatalf("key %s signs after %v", id, m.real.Sub(h.known))
		}
	}
}

func (m *model) history(id string) *history {
	if m.seen[id] == nil {
		m.seen[id] = &history{known: m.real}
	}
	return m.seen[id]
}

func TestWhateverHappensTheKeysKeepTheirPromises(t *testing.T) {
	imports := []*token.PrivateKey{newKey(t), newKey(t), newKey(t)}
	rapid.Check(t, func(t *rapid.T) {
		m := &model{ring: New("uid"), plan: basePlan(), real: start, imports: imports, seen: map[string]*history{}}
		m.minBefore = m.plan.PublishBefore
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			previous := ""
			if key, ok := m.ring.Active(); ok {
				previous = key.Public.ID
			}
			m.change(t)
			if previous != "" {
				// It may have signed until this very moment.
				m.history(previous).lastSigned = m.real
			}
			err := m.advance(t)
			m.check(t, previous, err)
			m.lost = false
		}
	})
}

func write(t *rapid.T, r *Ring) string {
	data, err := r.Marshal()
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	return string(data)
}

func ids(r *Ring) []string {
	set := map[string]bool{}
	for _, key := range r.Keys {
		set[key.Public.ID+string(key.Public.Algorithm)] = true
	}
	return slices.Sorted(maps.Keys(set))
}
