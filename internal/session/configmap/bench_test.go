// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
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

// BenchmarkFlood refreshes 10,000 sessions in 16 shards at a steady rate while somebody
// guesses 1,000 times a second. The iterations are the refreshes.
func BenchmarkFlood(b *testing.B) {
	const sessions, guessesPerSecond = 10000, 1000
	config := testConfig(b)
	config.Shards, config.MaxSessions = 16, sessions
	store := open(b, config)
	ids := fill(b, store, sessions)
	limit := attempts.Limit{Burst: 10, Interval: time.Minute}
	for _, perSecond := range []int{33, 500} {
		for _, accounts := range []int{0, 1, 1000, 1_000_000} {
			b.Run(fmt.Sprintf("%d refreshes per second, guesses at %d accounts", perSecond, accounts), func(b *testing.B) {
				before, started := store.Stats(), time.Now()
				stop := make(chan struct{})
				var guessing, group sync.WaitGroup
				var mu sync.Mutex
				var guesses []time.Duration
				made := 0
				if accounts > 0 {
					guessing.Go(func() {
						every(stop, guessesPerSecond, func(n int) {
							key := attempts.NewKey(string(config.Policy), b.Name(), strconv.Itoa(n%accounts))
							group.Go(func() {
								begin := time.Now()
								wait, err := store.Take(b.Context(), key, limit)
								if err != nil {
									b.Error(err)
								}
								mu.Lock()
								defer mu.Unlock()
								guesses = append(guesses, time.Since(begin))
								if wait == 0 {
									made++
								}
							})
						})
					})
				}
				latencies := make([]time.Duration, b.N)
				b.ResetTimer()
				left, done := make(chan struct{}), 0
				every(left, perSecond, func(i int) {
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
					if done++; done == b.N {
						close(left)
					}
				})
				close(stop)
				guessing.Wait()
				group.Wait()
				elapsed := time.Since(started).Seconds()
				b.StopTimer()
				after := store.Stats()
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(b.N)/elapsed, "refreshes/s")
				b.ReportMetric(float64(after.Reads-before.Reads)/elapsed, "reads/s")
				b.ReportMetric(float64(after.Writes-before.Writes)/elapsed, "writes/s")
				b.ReportMetric(percentile(latencies, 50), "p50-ms")
				b.ReportMetric(percentile(latencies, 99), "p99-ms")
				if accounts > 0 {
					b.ReportMetric(float64(len(guesses))/elapsed, "guesses/s")
					b.ReportMetric(float64(made)/elapsed, "allowed/s")
					b.ReportMetric(percentile(guesses, 99), "guess-p99-ms")
				}
			})
		}
	}
}

// every calls do at a rate, as a real clock has it: what was missed is made up for.
func every(stop <-chan struct{}, perSecond int, do func(n int)) {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	started := time.Now()
	for n := 0; ; {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		for due := int(time.Since(started).Seconds() * float64(perSecond)); n < due; n++ {
			select {
			case <-stop:
				return
			default:
				do(n)
			}
		}
	}
}

func percentile(of []time.Duration, p int) float64 {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[len(of)*p/100].Seconds() * 1e3
}
