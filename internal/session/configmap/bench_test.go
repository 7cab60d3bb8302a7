// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
)

// BenchmarkRefresh refreshes 10,000 sessions in 16 shards of a real API server, at
// steady rates that do not wait for the answers. An operation is a Load, a decision
// and a Swap. Run it with -benchtime=5000x or so: the iterations are the refreshes.
func BenchmarkRefresh(b *testing.B) {
	const sessions = 10000
	config := testConfig(b)
	config.Shards, config.MaxSessions = 16, sessions
	store := open(b, config)
	ids := fill(b, store, sessions)
	for _, perSecond := range []int{33, 500, 1000} {
		b.Run(fmt.Sprintf("%d per second", perSecond), func(b *testing.B) {
			latencies := make([]time.Duration, b.N)
			before, started := store.Stats(), time.Now()
			var group sync.WaitGroup
			ticker := time.NewTicker(time.Second / time.Duration(perSecond))
			defer ticker.Stop()
			b.ResetTimer()
			for i := range b.N {
				<-ticker.C
				group.Go(func() {
					begin := time.Now()
					found, err := store.Load(b.Context(), ids[(i*7919)%sessions])
					if err == nil {
						_, err = store.Swap(b.Context(), rotate(found, time.Now()))
					}
					if err != nil {
						b.Error(err)
					}
					latencies[i] = time.Since(begin)
				})
			}
			group.Wait()
			b.StopTimer()
			elapsed := time.Since(started).Seconds()
			slices.Sort(latencies)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(b.N)/elapsed, "refreshes/s")
			after := store.Stats()
			b.ReportMetric(float64(after.Reads-before.Reads)/elapsed, "reads/s")
			b.ReportMetric(float64(after.Writes-before.Writes)/elapsed, "writes/s")
			b.ReportMetric(latencies[b.N/2].Seconds()*1e3, "p50-ms")
			b.ReportMetric(latencies[b.N*99/100].Seconds()*1e3, "p99-ms")
		})
	}
}

func fill(b *testing.B, store *Store, sessions int) []session.ID {
	b.Helper()
	ids := make([]session.ID, sessions)
	var group sync.WaitGroup
	for i := range ids {
		created := newSession(store.config.Policy, time.Now())
		ids[i] = created.ID
		group.Go(func() {
			if err := store.Create(b.Context(), created); err != nil {
				b.Error(err)
			}
		})
	}
	group.Wait()
	size := 0
	for _, r := range store.readers {
		size += r.newest.Load().size
	}
	b.Logf("%d sessions of %d bytes each", sessions, size/sessions)
	return ids
}
