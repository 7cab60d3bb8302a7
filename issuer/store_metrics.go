// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tokenward/tokenward/issuer/policies"
)

// storeMetrics collects the figures of the session stores that are open. Their labels
// are the policy's namespace and name: which policy is about to be full is what an
// operator has to know.
type storeMetrics struct {
	sessions, limit, unreadable, requests, conflicts *prometheus.Desc
	connections, connectionLimit, connectionWaits    *prometheus.Desc

	mu    sync.Mutex
	open  map[types.NamespacedName]*followedStore
	pools pools
}

// pools are the connections of the stores in databases.
type pools = func(see func(types.NamespacedName, policies.PoolStats))

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
		connections: describe("tokenward_issuer_store_connections",
			"Connections to the session store that are open. Those that follow revocations are not counted."),
		connectionLimit: describe("tokenward_issuer_store_connections_limit", "Connections that there may be (maxConnections)."),
		connectionWaits: describe("tokenward_issuer_store_connection_waits_total", "Operations on sessions that had to wait for a connection."),

		open:  map[types.NamespacedName]*followedStore{},
		pools: func(func(types.NamespacedName, policies.PoolStats)) {},
	}
}

// observe has the figures of pools collected.
func (m *storeMetrics) observe(of pools) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pools = of
}

// followedStore leaves the metrics when it is closed.
type followedStore struct {
	policies.ConfigMaps
	key  types.NamespacedName
	from *storeMetrics
}

// follow has the store's figures collected until it is closed, or another store of a
// policy of that name takes its place.
func (m *storeMetrics) follow(key types.NamespacedName, store policies.ConfigMaps) *followedStore {
	followed := &followedStore{ConfigMaps: store, key: key, from: m}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[key] = followed
	return followed
}

// Close closes the store.
func (f *followedStore) Close() error {
	f.from.mu.Lock()
	if f.from.open[f.key] == f {
		delete(f.from.open, f.key)
	}
	f.from.mu.Unlock()
	return f.ConfigMaps.Close()
}

// Describe implements [prometheus.Collector].
func (m *storeMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		m.sessions, m.limit, m.unreadable, m.requests, m.conflicts, m.connections, m.connectionLimit, m.connectionWaits,
	} {
		out <- desc
	}
}

// now is what there is to collect. Nothing is asked while it is locked: who opens a store
// holds the lock of the pools, and then waits for this one.
func (m *storeMetrics) now() (map[types.NamespacedName]*followedStore, pools) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.open), m.pools
}

// Collect implements [prometheus.Collector].
func (m *storeMetrics) Collect(out chan<- prometheus.Metric) {
	open, pools := m.now()
	send := func(key types.NamespacedName, desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{key.Namespace, key.Name}, labels...)...)
	}
	for key, store := range open {
		stats := store.Stats()
		send(key, m.sessions, prometheus.GaugeValue, float64(stats.Sessions))
		send(key, m.limit, prometheus.GaugeValue, float64(store.Limit))
		send(key, m.unreadable, prometheus.GaugeValue, float64(stats.Unreadable))
		send(key, m.requests, prometheus.CounterValue, float64(stats.Reads), "read")
		send(key, m.requests, prometheus.CounterValue, float64(stats.Writes), "write")
		send(key, m.conflicts, prometheus.CounterValue, float64(stats.Conflicts))
	}
	pools(func(key types.NamespacedName, stats policies.PoolStats) {
		send(key, m.connections, prometheus.GaugeValue, float64(stats.Connections))
		send(key, m.connectionLimit, prometheus.GaugeValue, float64(stats.Limit))
		send(key, m.connectionWaits, prometheus.CounterValue, float64(stats.Waits))
	})
}
