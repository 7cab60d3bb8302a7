// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session/configmap"
)

// storeMetrics collects the figures of the session stores that are open. Their labels
// are the policy's namespace and name: which policy is about to be full is what an
// operator has to know.
type storeMetrics struct {
	sessions, limit, unreadable, requests, conflicts *prometheus.Desc

	mu   sync.Mutex
	open map[types.NamespacedName]*followedStore
}

var _ prometheus.Collector = (*storeMetrics)(nil)

func newStoreMetrics() *storeMetrics {
	describe := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"namespace", "policy"}, more...), nil)
	}
	return &storeMetrics{
		sessions:   describe("tokenward_issuer_sessions", "Sessions in the store, as far as this issuer knows."),
		limit:      describe("tokenward_issuer_sessions_limit", "Sessions that the store may hold (store.configMap.maxSessions)."),
		unreadable: describe("tokenward_issuer_sessions_unreadable", "Stored records that do not open: forged, sealed with a key that is gone, or of a newer release."),
		requests:   describe("tokenward_issuer_store_requests_total", "Requests to the API server for session shards.", "verb"),
		conflicts:  describe("tokenward_issuer_store_conflicts_total", "Writes of session shards that came too late and were made anew."),
		open:       map[types.NamespacedName]*followedStore{},
	}
}

// followedStore leaves the metrics when it is closed.
type followedStore struct {
	*configmap.Store
	key   types.NamespacedName
	limit int32
	from  *storeMetrics
}

// follow has the store's figures collected until it is closed, or another store of a
// policy of that name takes its place.
func (m *storeMetrics) follow(policy *api.TokenPolicy, store *configmap.Store) *followedStore {
	followed := &followedStore{
		Store: store, key: client.ObjectKeyFromObject(policy), limit: policy.Spec.Store.ConfigMap.MaxSessions, from: m,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[followed.key] = followed
	return followed
}

// Close closes the store.
func (f *followedStore) Close() error {
	f.from.mu.Lock()
	if f.from.open[f.key] == f {
		delete(f.from.open, f.key)
	}
	f.from.mu.Unlock()
	return f.Store.Close()
}

// Describe implements [prometheus.Collector].
func (m *storeMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{m.sessions, m.limit, m.unreadable, m.requests, m.conflicts} {
		out <- desc
	}
}

// Collect implements [prometheus.Collector].
func (m *storeMetrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, store := range m.open {
		stats := store.Stats()
		send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{key.Namespace, key.Name}, labels...)...)
		}
		send(m.sessions, prometheus.GaugeValue, float64(stats.Sessions))
		send(m.limit, prometheus.GaugeValue, float64(store.limit))
		send(m.unreadable, prometheus.GaugeValue, float64(stats.Unreadable))
		send(m.requests, prometheus.CounterValue, float64(stats.Reads), "read")
		send(m.requests, prometheus.CounterValue, float64(stats.Writes), "write")
		send(m.conflicts, prometheus.CounterValue, float64(stats.Conflicts))
	}
}
