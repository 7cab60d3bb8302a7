// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package prometheus has no code: its tests give config/prometheus to a real Prometheus
// and its promtool. The cases in testdata say when each alert fires and when it does not.
// That the metrics of the alerts are those of the code is the business of test/docs.
package prometheus
