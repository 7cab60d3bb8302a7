// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/sidecar/issuerclient"
	"github.com/tokenward/tokenward/sidecar/metrics"
	"github.com/tokenward/tokenward/sidecar/revocation"
)

// sidecar is the part of one that knows what was revoked.
type sidecar struct {
	set      *revocation.Set
	follower *revocation.Follower
}

// newClient talks to the issuer at an address as a sidecar does.
func newClient(t *testing.T, address string, c certificate) *issuerclient.Client {
	t.Helper()
	identity := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(identity, []byte(podToken), 0o600); err != nil {
		t.Fatal(err)
	}
	in := &settings.Settings{
		Policy:        settings.Policy{Namespace: tenant, Name: "web"},
		IssuerService: settings.IssuerService{URL: "https://" + address, CABundle: string(c.Certificate)},
	}
	return &issuerclient.Client{
		Settings: func() *settings.Settings { return in }, IdentityFile: identity, Metrics: metrics.New(), Now: time.Now,
	}
}

// startSidecar follows until the test ends, and tells arrivals of what it refuses.
func startSidecar(ctx context.Context, t *testing.T, client *issuerclient.Client, told *arrivals) *sidecar {
	t.Helper()
	s := &sidecar{set: revocation.NewSet(time.Now, told.arrived)}
	s.follower = &revocation.Follower{Set: s.set, Open: client.Revocations, Report: func(error) {}, Now: time.Now}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.follower.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

// arrivals are the moments from which sidecars refuse a session.
type arrivals struct {
	mu       sync.Mutex
	expected map[string]*arrival
}

type arrival struct {
	at   []time.Time
	left int
	all  chan struct{} // is closed when it has come to all
}

// expect says that n sidecars will be told of a session.
func (a *arrivals) expect(session string, n int) *arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	expected := &arrival{left: n, all: make(chan struct{})}
	a.expected[session] = expected
	return expected
}

func (a *arrivals) arrived(session string) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	expected := a.expected[session]
	if expected == nil {
		return
	}
	expected.at = append(expected.at, now)
	if expected.left--; expected.left == 0 {
		close(expected.all)
	}
}

// count is how many it has come to.
func (a *arrivals) count(expected *arrival) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(expected.at)
}

// wait waits until it has come to all, and returns how long after a moment it came to
// each; 0 if before.
func (a *arrivals) wait(ctx context.Context, t *testing.T, expected *arrival, after time.Time) []time.Duration {
	t.Helper()
	select {
	case <-expected.all:
	case <-ctx.Done():
		t.Fatal("interrupted")
	case <-time.After(patience):
		t.Fatalf("a revocation did not come to all sidecars within %s, but to %d", patience, a.count(expected))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var took []time.Duration
	for _, at := range expected.at {
		took = append(took, max(0, at.Sub(after)))
	}
	return took
}
