// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/sidecar/issuerclient"
)

// feed has sessions end by logout and waits until every sidecar refuses them: in
// peace, with all streams cut in that moment, and with an issuer gone meanwhile.
func feed(t *testing.T, w *world) {
	t.Helper()
	for _, store := range w.shared() {
		t.Run("revocations, "+store.Kind, func(t *testing.T) {
			s := newFeedSite(t, w, store)
			of := fmt.Sprintf("revocation to %d sidecars, ", w.scale.sidecars)
			s.measure(t, of+store.Kind, func() {})
			s.measure(t, of+"every stream cut, "+store.Kind, s.cut)
			var took time.Duration
			held := w.must(t, of+"over an issuer's restart, "+store.Kind, "none missed", func(t *testing.T) string {
				t.Helper()
				took = s.restart(t)
				return fmt.Sprintf("%d of %d came to all", w.scale.revocations, w.scale.revocations)
			})
			if held {
				w.time("the same, from the issuer's start until the last has it", "< 5 s", milliseconds(took), took < 5*time.Second)
			}
		})
	}
}

// feedSite is a number of sidecars at two issuers, and a third one that takes logouts.
type feedSite struct {
	*world
	store       access
	uid         session.PolicyID
	certificate certificate
	away        *issuer // the one that goes away, and how it does
	stop        func()
	logouts     *issuerclient.Client
	relays      []*relay
	sidecars    []*sidecar
	told        *arrivals
}

func newFeedSite(t *testing.T, w *world, store access) *feedSite {
	t.Helper()
	s := &feedSite{world: w, store: store, uid: storetest.NewPolicyID(), certificate: newCertificate(t), told: &arrivals{expected: map[string]*arrival{}}}
	var addresses []string
	for i := range 3 {
		address, stop := s.start(t)
		addresses = append(addresses, address)
		if i == 0 {
			s.stop = stop
		}
	}
	s.logouts = newClient(t, addresses[2], s.certificate)
	for _, address := range addresses[:2] {
		r, err := newRelay(address, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.close)
		s.relays = append(s.relays, r)
	}
	for i := range w.scale.sidecars {
		client := newClient(t, s.relays[i%len(s.relays)].address(), s.certificate)
		s.sidecars = append(s.sidecars, startSidecar(w.ctx, t, client, s.told))
	}
	s.synced(t)
	return s
}

// start starts an issuer process's worth of issuer; it ends with the test or before.
func (s *feedSite) start(t *testing.T) (address string, stop func()) {
	t.Helper()
	i, closeIssuer, err := newIssuer(s.store, s.uid, s.keys[token.EdDSA], time.Now)
	if err != nil {
		t.Fatal(err)
	}
	address, stopServer, err := serve(i, s.certificate, nil)
	if err != nil {
		closeIssuer()
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			stopServer()
			closeIssuer()
		}
	}
	t.Cleanup(stop)
	s.away = i
	return address, stop
}

// synced waits until every sidecar has an open stream, and knows all that was.
func (s *feedSite) synced(t *testing.T) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for _, sidecar := range s.sidecars {
		for !sidecar.follower.Status().Synced {
			select {
			case <-ticker.C:
			case <-s.ctx.Done():
				t.Fatal("interrupted")
			case <-deadline:
				t.Fatal("a sidecar does not get a stream")
			}
		}
	}
}

func (s *feedSite) cut() {
	for _, r := range s.relays {
		r.cut()
	}
}

// measure has a number of sessions end one after the other, while something else happens.
func (s *feedSite) measure(t *testing.T, figure string, meanwhile func()) {
	t.Helper()
	var took []time.Duration
	held := s.must(t, figure, "none missed", func(t *testing.T) string {
		t.Helper()
		for range s.scale.revocations {
			s.synced(t)
			took = append(took, s.logout(t, s.login(t), meanwhile)...)
		}
		return fmt.Sprintf("%d of %d came to all", s.scale.revocations, s.scale.revocations)
	})
	if held {
		p50, p99 := percentile(took, 50), percentile(took, 99)
		s.time("the same, from the logout's answer", "p99 < 5 s", "p50 "+milliseconds(p50)+", p99 "+milliseconds(p99), p99 < 5*time.Second)
	}
}

func (s *feedSite) login(t *testing.T) exchange.Token {
	t.Helper()
	return s.away.mustLogin(s.ctx, t)
}

// logout ends a session while something else happens.
func (s *feedSite) logout(t *testing.T, of exchange.Token, meanwhile func()) []time.Duration {
	t.Helper()
	expected := s.told.expect(string(of.Session), len(s.sidecars))
	done := make(chan struct{})
	go func() {
		defer close(done)
		meanwhile()
	}()
	err := s.logouts.Logout(s.ctx, of.Raw)
	answered := time.Now()
	<-done
	if err != nil {
		t.Fatalf("log out: %v", err)
	}
	took := s.told.wait(s.ctx, t, expected, answered)
	for i, sidecar := range s.sidecars {
		if !sidecar.set.Revoked(string(of.Session)) {
			t.Errorf("sidecar %d would let the session in", i)
		}
	}
	return took
}

// restart takes an issuer away with all its streams, has sessions end, and brings it
// back. It returns how long the last sidecar then took to know of all.
func (s *feedSite) restart(t *testing.T) time.Duration {
	t.Helper()
	s.synced(t)
	ending := make([]exchange.Token, s.scale.revocations)
	for i := range ending {
		ending[i] = s.login(t)
	}
	gone := s.relays[0]
	gone.point("")
	gone.cut()
	s.stop()
	var expected []*arrival
	for _, of := range ending {
		expected = append(expected, s.told.expect(string(of.Session), len(s.sidecars)))
		if err := s.logouts.Logout(s.ctx, of.Raw); err != nil {
			t.Fatalf("log out: %v", err)
		}
	}
	for _, e := range expected {
		if n := s.told.count(e); n > len(s.sidecars)/2 {
			t.Fatalf("%d sidecars know of it, so none was cut off: the test proves nothing", n)
		}
	}
	address, _ := s.start(t)
	began := time.Now()
	gone.point(address)
	for _, e := range expected {
		s.told.wait(s.ctx, t, e, began)
	}
	return time.Since(began)
}
