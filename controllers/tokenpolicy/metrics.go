// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// newTryCounter counts connections to applications' ports. Registering it once more gives
// the counter that is there, so that a process may hold two managers.
func newTryCounter() (*prometheus.CounterVec, error) {
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tokenward",
		Name:      "port_tries_total",
		Help:      "Connections by which the manager tried whether an application's port can be reached past its sidecar, by what came of them.",
	}, []string{"outcome"})
	err := metrics.Registry.Register(counter)
	if existing, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := existing.ExistingCollector.(*prometheus.CounterVec); ok {
			return same, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("register the metric tokenward_port_tries_total: %w", err)
	}
	return counter, nil
}
