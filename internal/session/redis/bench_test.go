// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/testservers"
)

const benchSessions = 10000

// BenchmarkRefresh refreshes 10,000 sessions of a real Redis that writes an append-only
// file. An operation is a Load, a decision and a Swap.
func BenchmarkRefresh(b *testing.B) {
	server := testservers.Redis(b, testservers.RedisOptions{Config: []string{"appendonly yes", "appendfsync everysec"}})
	store := open(b, Options{Addresses: []string{server.Addr}})
	ids := fill(b, store)
	refresh := func(b *testing.B, i int) {
		b.Helper()
		found, err := store.Load(b.Context(), ids[(i*7919)%benchSessions])
		if err == nil {
			_, err = store.Swap(b.Context(), rotate(found, time.Now()))
		}
		if err != nil {
			b.Error(err)
		}
	}

	b.Run("as many as it can, 20 at once", func(b *testing.B) {
		latencies := make([]time.Duration, b.N)
		started := time.Now()
		var group sync.WaitGroup
		for worker := range 20 {
			group.Go(func() {
				for i := worker; i < b.N; i += 20 {
					begin := time.Now()
					refresh(b, i)
					latencies[i] = time.Since(begin)
				}
			})
		}
		group.Wait()
		report(b, latencies, time.Since(started))
	})
	// Steady rates that do not wait for the answers. Run them with -benchtime=5000x or
	// so: the iterations are the refreshes.
	for _, perSecond := range []int{33, 500} {
		b.Run(fmt.Sprintf("%d per second", perSecond), func(b *testing.B) {
			latencies := make([]time.Duration, b.N)
			started := time.Now()
			var group sync.WaitGroup
			ticker := time.NewTicker(time.Second / time.Duration(perSecond))
			defer ticker.Stop()
			for i := range b.N {
				<-ticker.C
				group.Go(func() {
					begin := time.Now()
					refresh(b, i)
					latencies[i] = time.Since(begin)
				})
			}
			group.Wait()
			report(b, latencies, time.Since(started))
		})
	}
}

// BenchmarkRevokeWhere ends 10,000 sessions with one order while others are refreshed, 200
// a second. Run it with -benchtime=1x or so: an iteration is an order.
func BenchmarkRevokeWhere(b *testing.B) {
	const sessions, others = 10000, 500
	server := testservers.Redis(b, testservers.RedisOptions{Config: []string{"appendonly yes", "appendfsync everysec"}})
	store := open(b, Options{Addresses: []string{server.Addr}})
	ids := make([]session.ID, others)
	parallel(others, func(i int) {
		other := newSession(store.options.Policy, time.Now())
		other.Subject = "bob"
		ids[i] = other.ID
		if err := store.Create(b.Context(), other); err != nil {
			b.Error(err)
		}
	})
	var latencies []time.Duration
	for b.Loop() {
		b.StopTimer()
		parallel(sessions, func(int) {
			if err := store.Create(b.Context(), newSession(store.options.Policy, time.Now())); err != nil {
				b.Error(err)
			}
		})
		stop := make(chan struct{})
		var group sync.WaitGroup
		group.Go(func() {
			ticker := time.NewTicker(5 * time.Millisecond)
			defer ticker.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-ticker.C:
				}
				begin := time.Now()
				found, err := store.Load(b.Context(), ids[i%others])
				if err == nil {
					_, err = store.Swap(b.Context(), rotate(found, time.Now()))
				}
				if err != nil {
					b.Error(err)
				}
				latencies = append(latencies, time.Since(begin))
			}
		})
		b.StartTimer()
		n, err := store.RevokeWhere(b.Context(), session.Selection{Subject: "alice@example.com", CreatedUntil: time.Now()}, order)
		if n != sessions || err != nil {
			b.Fatalf("%d sessions, %v", n, err)
		}
		close(stop)
		group.Wait()
	}
	slices.Sort(latencies)
	b.ReportMetric(latencies[len(latencies)*99/100].Seconds()*1e3, "refresh-p99-ms")
	b.ReportMetric(latencies[len(latencies)-1].Seconds()*1e3, "refresh-max-ms")
}

// parallel does the work of each number, 20 at once.
func parallel(n int, work func(i int)) {
	var group sync.WaitGroup
	for worker := range 20 {
		group.Go(func() {
			for i := worker; i < n; i += 20 {
				work(i)
			}
		})
	}
	group.Wait()
}

func report(b *testing.B, latencies []time.Duration, elapsed time.Duration) {
	b.Helper()
	slices.Sort(latencies)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "refreshes/s")
	b.ReportMetric(latencies[b.N/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(latencies[b.N*99/100].Seconds()*1e3, "p99-ms")
}

func fill(b *testing.B, store *Store) []session.ID {
	b.Helper()
	ids := make([]session.ID, benchSessions)
	parallel(benchSessions, func(i int) {
		created := newSession(store.options.Policy, time.Now())
		ids[i] = created.ID
		if err := store.Create(b.Context(), created); err != nil {
			b.Error(err)
		}
	})
	used, err := store.client.MemoryUsage(b.Context(), store.key(ids[0])).Result()
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d sessions of %d bytes each", benchSessions, used)
	return ids
}
