// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	selector = regexp.MustCompile(`(tokenward_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`^(\w+)(=~|!~|!=|=)"([^"]*)"$`)
	grouping = regexp.MustCompile(`\b(?:by|without) \(([^)]*)\)`)
)

// labelsOfMetrics are those that the page's tables have for each metric.
func labelsOfMetrics(t *testing.T) map[string][]string {
	t.Helper()
	labels := map[string][]string{}
	for line := range strings.Lines(section(t, read(t, "docs/operations.md"), "## Metrics")) {
		cells := strings.Split(line, "|")
		if !strings.HasPrefix(line, "|") || len(cells) < 4 {
			continue
		}
		for _, name := range spans(cells[1]) {
			labels[name] = spans(cells[2])
		}
	}
	return labels
}

// TestAlertsAskForWhatThereIs: a name or a value that is written wrongly is no error in
// Prometheus, and an alert that never fires. That the metrics are those of the code is
// tested by TestEveryMetricIsExplained.
func TestAlertsAskForWhatThereIs(t *testing.T) {
	labels, alerts := labelsOfMetrics(t), 0
	literals := inCode(t, `"([^"\n]+)"`)
	for _, example := range blocks(t, "docs/operations.md", "promql") {
		for alert := range strings.SplitSeq(strings.TrimSpace(example.text), "\n\n") {
			comment, expression, ok := strings.Cut(alert, "\n")
			found := selector.FindAllStringSubmatch(expression, -1)
			if !ok || !strings.HasPrefix(comment, "# ") || strings.Contains(expression, "\n") || len(found) == 0 {
				t.Errorf("%s: an alert is a comment that says what is seen, and an expression of one line: %q", example, alert)
				continue
			}
			alerts++
			// What Prometheus adds, and the bounds of a histogram.
			allowed := []string{"namespace", "pod"}
			for _, one := range found {
				metric, isHistogram := strings.CutSuffix(one[1], "_bucket")
				have, known := labels[metric]
				if !known {
					t.Errorf("there is no metric %s: %s", one[1], expression)
				}
				if allowed = append(allowed, have...); isHistogram {
					allowed = append(allowed, "le")
				}
				for part := range strings.SplitSeq(one[2], ",") {
					if part == "" {
						continue
					}
					parts := matcher.FindStringSubmatch(part)
					if len(parts) == 0 || !slices.Contains(have, parts[1]) || !literals[parts[3]] {
						t.Errorf("%s is never %s: %s", metric, part, expression)
					}
				}
			}
			for _, group := range grouping.FindAllStringSubmatch(expression, -1) {
				for label := range strings.SplitSeq(group[1], ", ") {
					if !slices.Contains(allowed, label) {
						t.Errorf("no metric has the label %q: %s", label, expression)
					}
				}
			}
			if strings.Count(expression, "(") != strings.Count(expression, ")") || !strings.ContainsAny(expression, "<>=") {
				t.Errorf("this compares nothing, or lacks a bracket: %s", expression)
			}
		}
	}
	if alerts < 10 {
		t.Errorf("only %d alerts found", alerts)
	}
}
