// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
)

// BenchmarkRefresh refreshes 10,000 sessions in a server on this machine that writes
// its log through to the disk, first at steady rates that do not wait for the answers,
// then as fast as 32 callers can. An operation is a Load, a decision and a Swap. Run it
// with -benchtime=5000x or so: the iterations are the refreshes.
func BenchmarkRefresh(b *testing.B) {
	const sessions = 10000
	server := testservers.Postgres(b, testservers.PostgresSetting("fsync", "on"), testservers.PostgresSetting("full_page_writes", "on"))
	d := open(b, testConfig(server, server.Database(b)))
	store := d.Store(storetest.NewPolicyID(), StoreOptions{})
	ids := make([]session.ID, sessions)
	parallel(b, 32, sessions, func(i int) {
		created := newSession(store.policy, time.Now())
		ids[i] = created.ID
		if err := store.Create(b.Context(), created); err != nil {
			b.Error(err)
		}
	})
	refresh := func(i int) {
		found, err := store.Load(b.Context(), ids[(i*7919)%sessions])
		if err == nil {
			_, err = store.Swap(b.Context(), rotate(found, time.Now()))
		}
		if err != nil {
			b.Error(err)
		}
	}
	for _, perSecond := range []int{33, 500, 1000} {
		b.Run(fmt.Sprintf("%d per second", perSecond), func(b *testing.B) {
			latencies := make([]time.Duration, b.N)
			started := time.Now()
			var group sync.WaitGroup
			ticker := time.NewTicker(time.Second / time.Duration(perSecond))
			defer ticker.Stop()
			b.ResetTimer()
			for i := range b.N {
				<-ticker.C
				group.Go(func() {
					begin := time.Now()
					refresh(i)
					latencies[i] = time.Since(begin)
				})
			}
			group.Wait()
			b.StopTimer()
			report(b, latencies, time.Since(started))
		})
	}
	b.Run("as fast as it goes", func(b *testing.B) {
		latencies := make([]time.Duration, b.N)
		started := time.Now()
		b.ResetTimer()
		parallel(b, 32, b.N, func(i int) {
			begin := time.Now()
			refresh(i)
			latencies[i] = time.Since(begin)
		})
		b.StopTimer()
		report(b, latencies, time.Since(started))
	})
	var size, hot int64
	if err := d.do(context.WithoutCancel(b.Context()), func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT pg_total_relation_size('tokenward.sessions'), 100 * n_tup_hot_upd / greatest(n_tup_upd, 1)
			FROM pg_stat_user_tables WHERE relname = 'sessions'`).Scan(&size, &hot)
	}); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d sessions take %d bytes each; %d %% of the updates were made in place", sessions, size/sessions, hot)
}

// BenchmarkRevokeWhere ends 10,000 sessions with one order while others are refreshed, 200
// a second. Run it with -benchtime=1x or so: an iteration is an order.
func BenchmarkRevokeWhere(b *testing.B) {
	const sessions, others = 10000, 500
	server := testservers.Postgres(b, testservers.PostgresSetting("fsync", "on"), testservers.PostgresSetting("full_page_writes", "on"))
	store := open(b, testConfig(server, server.Database(b))).Store(storetest.NewPolicyID(), StoreOptions{})
	ids := make([]session.ID, others)
	parallel(b, 32, others, func(i int) {
		other := newSession(store.policy, time.Now())
		other.Subject = "bob"
		ids[i] = other.ID
		if err := store.Create(b.Context(), other); err != nil {
			b.Error(err)
		}
	})
	var latencies []time.Duration
	for b.Loop() {
		b.StopTimer()
		parallel(b, 32, sessions, func(int) {
			if err := store.Create(b.Context(), newSession(store.policy, time.Now())); err != nil {
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
		n, err := store.RevokeWhere(b.Context(), session.Selection{Subject: "alice@example.com", CreatedUntil: time.Now()}, order())
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

func report(b *testing.B, latencies []time.Duration, elapsed time.Duration) {
	b.Helper()
	slices.Sort(latencies)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "refreshes/s")
	b.ReportMetric(latencies[b.N/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(latencies[b.N*99/100].Seconds()*1e3, "p99-ms")
}

func parallel(b *testing.B, workers, n int, work func(i int)) {
	b.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				work(i)
			}
		})
	}
	group.Wait()
}
