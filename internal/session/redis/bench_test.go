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
	var group sync.WaitGroup
	for worker := range 20 {
		group.Go(func() {
			for i := worker; i < benchSessions; i += 20 {
				created := newSession(store.options.Policy, time.Now())
				ids[i] = created.ID
				if err := store.Create(b.Context(), created); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
	used, err := store.client.MemoryUsage(b.Context(), store.key(ids[0])).Result()
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d sessions of %d bytes each", benchSessions, used)
	return ids
}
