// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestEveryVerdictHasASeriesFromTheStart: Prometheus sees no increase in the first sample
// of a series, so an alert would miss the first pod that failed.
func TestEveryVerdictHasASeriesFromTheStart(t *testing.T) {
	source, err := os.ReadFile("verdict.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, match := range regexp.MustCompile(`(?m)^\s*(?:const )?\w+ +Verdict = "(\w+)"`).FindAllSubmatch(source, -1) {
		want = append(want, string(match[1]))
	}
	registry := prometheus.NewRegistry()
	if _, err := newCounter(registry); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	var got []string
	for _, series := range families[0].GetMetric() {
		got = append(got, series.GetLabel()[0].GetValue())
		if value := series.GetCounter().GetValue(); value != 0 {
			t.Errorf("%s begins with %v", series.GetLabel()[0].GetValue(), value)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 20 || !slices.Equal(got, want) {
		t.Errorf("the series are\n%v, and the verdicts\n%v", got, want)
	}
}
