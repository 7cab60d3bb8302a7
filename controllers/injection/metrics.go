// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// newCounter counts the pods seen, by verdict. Registering it once more gives the
// counter that is there, so that a process may hold two managers.
func newCounter(registerer prometheus.Registerer) (*prometheus.CounterVec, error) {
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tokenward",
		Name:      "injections_total",
		Help:      "Pods that the admission webhook has seen, by what came of them. Dry runs are not counted.",
	}, []string{"verdict"})
	err := registerer.Register(counter)
	if existing, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := existing.ExistingCollector.(*prometheus.CounterVec); ok {
			return same, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("register the metric tokenward_injections_total: %w", err)
	}
	// Every series exists before it counts, so that an increase over the first event is one,
	// and a manager that is not scraped can be told from one that has seen no pod.
	for _, verdict := range Verdicts() {
		counter.WithLabelValues(string(verdict))
	}
	return counter, nil
}
