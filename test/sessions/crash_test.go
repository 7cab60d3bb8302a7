// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/token"
)

// crashes has issuer processes killed in the middle of a refresh, and the client come
// again to others with the token it has.
func crashes(t *testing.T, w *world) {
	t.Helper()
	stores := w.shared()
	for i, store := range stores {
		mine := w.scale.crashes / len(stores)
		if i < w.scale.crashes%len(stores) {
			mine++
		}
		figure := "issuer killed at each step, or connection cut, " + store.Kind
		w.must(t, figure, "retry gives 1 token, 1 rotation", func(t *testing.T) string {
			t.Helper()
			return newCrashSite(t, w, store).run(t, w, mine)
		})
	}
}

// crashSite is where processes crash: the issuers that live on.
type crashSite struct {
	// before made the tokens an hour ago, others take the retries.
	before  *issuer
	others  []*issuer
	servers []string
	client  *http.Client
	orders  orders
}

func newCrashSite(t *testing.T, w *world, store access) *crashSite {
	t.Helper()
	// The pace of a store's writes is shared by who writes, which here are more than there
	// would ever be; it is measured elsewhere.
	store.WritesPerSecond = 1000
	key, uid, vouching := w.keys[token.ES256], storetest.NewPolicyID(), newCertificate(t)
	pkcs8, err := key.PKCS8()
	if err != nil {
		t.Fatal(err)
	}
	c := &crashSite{
		before: anotherIssuer(t, store, uid, key, func() time.Time { return time.Now().Add(-time.Hour) }),
		others: []*issuer{anotherIssuer(t, store, uid, key, time.Now), anotherIssuer(t, store, uid, key, time.Now)},
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: vouching.client(), DisableKeepAlives: true}, Timeout: patience},
		orders: orders{Access: store, Policy: uid, Algorithm: token.ES256, Key: pkcs8, Certificate: vouching},
	}
	for _, other := range c.others {
		address, stop, err := serve(other, vouching, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		c.servers = append(c.servers, address)
	}
	return c
}

// run makes n crashes, three at a time, at each step in turn.
func (c *crashSite) run(t *testing.T, w *world, n int) string {
	t.Helper()
	const atOnce = 3
	progress := w.every(5 * time.Second)
	var next, healed atomic.Int64
	var mu sync.Mutex
	var retries []time.Duration
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && w.ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				at := steps()[i%len(steps())]
				took, err := c.crash(w.ctx, t, at, i)
				if err != nil {
					t.Errorf("crash %d, %s: %v", i, at, err)
					return
				}
				healed.Add(1)
				mu.Lock()
				retries = append(retries, took)
				mu.Unlock()
				progress("%s: %d of %d crashes", c.orders.Access.Kind, healed.Load(), n)
			}
		})
	}
	workers.Wait()
	w.interrupted(t)
	return fmt.Sprintf("%d of %d healed, retry p50 %s, longest %s", healed.Load(), n, milliseconds(percentile(retries, 50)), milliseconds(slices.Max(append(retries, 0))))
}

// crash has one refresh fail at a step, and returns how long the retry took.
func (c *crashSite) crash(ctx context.Context, t *testing.T, at step, n int) (time.Duration, error) {
	t.Helper()
	o := c.orders
	o.Step = at
	p, err := startProcess(ctx, o)
	if err != nil {
		return 0, err
	}
	expired, err := c.before.service.Login(ctx, c.before.policy, map[string]string{"id": alice, "phone": phone}, netip.Addr{})
	if err != nil {
		return 0, errors.Join(err, p.end())
	}
	if err := c.lose(ctx, p, at, expired.Raw); err != nil {
		return 0, err
	}

	began := time.Now()
	first, err := c.refresh(ctx, c.servers[n%len(c.servers)], expired.Raw)
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("retry: %w", err)
	}
	second, err := c.refresh(ctx, c.servers[(n+1)%len(c.servers)], expired.Raw)
	if err != nil {
		return 0, fmt.Errorf("retry at the other issuer: %w", err)
	}
	stored, err := c.others[0].policy.Sessions.Load(ctx, expired.Session)
	switch {
	case err != nil:
		return 0, err
	case first != second:
		return 0, errors.New("two retries got two tokens")
	case stored.Generation != 2 || stored.Revoked != nil || stored.Current.ID != c.others[0].claims(t, first).ID:
		return 0, fmt.Errorf("after the retries the session is at generation %d, and not at the token that they got", stored.Generation)
	}
	return took, nil
}

// lose has the process lose the answer to a refresh.
func (c *crashSite) lose(ctx context.Context, p *process, at step, raw string) error {
	calling, hangUp := context.WithCancel(ctx)
	defer hangUp()
	if at == clientGone {
		go func() {
			_, _ = p.line() // that it has swapped, or the process's end
			hangUp()
		}()
	}
	got, err := c.refresh(calling, p.address, raw)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("the refresh came to its end with %d characters of token", len(got)), p.end())
	case at != clientGone:
		return p.killed()
	case !errors.Is(err, context.Canceled):
		return errors.Join(fmt.Errorf("the refresh failed before the connection was cut: %w", err), p.end())
	}
	return p.end()
}

func (c *crashSite) refresh(ctx context.Context, address, raw string) (string, error) {
	body, err := json.Marshal(protocol.RefreshRequest{AccessToken: raw})
	if err != nil {
		return "", err
	}
	url := "https://" + address + protocol.Path(tenant, "web", protocol.CallRefresh)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+podToken)
	response, err := c.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	var granted protocol.TokenResponse
	if response.StatusCode != http.StatusOK || json.Unmarshal(answer, &granted) != nil {
		return "", fmt.Errorf("status %d: %s", response.StatusCode, answer)
	}
	return granted.AccessToken, nil
}
