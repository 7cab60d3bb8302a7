// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

var (
	selector = regexp.MustCompile(`((?:tokenward|apiserver)_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`^(\w+)(=~|!~|!=|=)"([^"]*)"$`)
	grouping = regexp.MustCompile(`\b(?:by|without) \(([^)]*)\)`)
	variable = regexp.MustCompile(`\$labels\.(\w+)`)
)

// alert is one of config/prometheus/alerts.yaml. That Prometheus takes it, and when it
// fires, is the business of test/prometheus.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []alert `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/prometheus/alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	var found []alert
	for _, group := range file.Groups {
		found = append(found, group.Rules...)
	}
	if len(found) < 12 {
		t.Fatalf("only %d alerts found", len(found))
	}
	return found
}

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
	labels, literals := labelsOfMetrics(t), inCode(t, `"([^"\n]+)"`)
	for _, one := range alerts(t) {
		// What Prometheus adds, and the bounds of a histogram.
		allowed, asked := []string{"namespace", "pod"}, 0
		for _, found := range selector.FindAllStringSubmatch(one.Expr, -1) {
			if asked++; strings.HasPrefix(found[1], "apiserver_") {
				continue // TestTheAPIServerCountsWhatItDoesNotReach
			}
			metric, isHistogram := strings.CutSuffix(found[1], "_bucket")
			have, known := labels[metric]
			if !known {
				t.Errorf("%s: there is no metric %s", one.Alert, found[1])
			}
			if allowed = append(allowed, have...); isHistogram {
				allowed = append(allowed, "le")
			}
			for part := range strings.SplitSeq(found[2], ",") {
				if part == "" {
					continue
				}
				parts := matcher.FindStringSubmatch(part)
				if len(parts) == 0 || !slices.Contains(have, parts[1]) {
					t.Errorf("%s: %s has no label for %s", one.Alert, metric, part)
					continue
				}
				values := []string{parts[3]}
				if strings.HasSuffix(parts[2], "~") {
					values = strings.Split(parts[3], "|")
				}
				for _, value := range values {
					if !literals[value] {
						t.Errorf("%s: %s is never %q", one.Alert, metric, value)
					}
				}
			}
		}
		if asked == 0 {
			t.Errorf("%s asks for no metric: %s", one.Alert, one.Expr)
		}
		var grouped []string
		for _, group := range grouping.FindAllStringSubmatch(one.Expr, -1) {
			for label := range strings.SplitSeq(group[1], ", ") {
				if grouped = append(grouped, label); !slices.Contains(allowed, label) {
					t.Errorf("%s: no metric has the label %q: %s", one.Alert, label, one.Expr)
				}
			}
		}
		for _, label := range variable.FindAllStringSubmatch(one.Annotations["summary"]+one.Annotations["description"], -1) {
			if !slices.Contains(grouped, label[1]) {
				t.Errorf("%s names the label %q, which it never has", one.Alert, label[1])
			}
		}
	}
}

// TestEveryAlertIsExplained compares the rules with the page's table, and their references
// with its headings.
func TestEveryAlertIsExplained(t *testing.T) {
	page := read(t, "docs/operations.md")
	table, severities := section(t, page, "## Alerts"), map[string]string{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); strings.HasPrefix(line, "| `") && len(cells) == 6 {
			severities[strings.Trim(cells[1], " `")] = strings.TrimSpace(cells[2])
		}
	}
	names := map[string]bool{}
	for _, one := range alerts(t) {
		names[one.Alert] = true
		if severity := one.Labels["severity"]; severities[one.Alert] != severity {
			t.Errorf("%s is %s, and in the page %q", one.Alert, severity, severities[one.Alert])
		}
		text, anchor, ok := strings.Cut(one.Annotations["description"], " docs/operations.md#")
		if !ok || !strings.HasSuffix(text, ".") || !slices.Contains(anchors(page), anchor) {
			t.Errorf("%s: the description does not end with a section of docs/operations.md: %q", one.Alert, one.Annotations["description"])
		}
		for _, quoted := range regexp.MustCompile(`Tokenward[A-Z]\w+`).FindAllString(text, -1) {
			if _, ok := severities[quoted]; !ok {
				t.Errorf("%s names the alert %s, which there is not", one.Alert, quoted)
			}
		}
	}
	same(t, "alert", names, column(table, 0))
}

// TestTheAPIServerCountsWhatItDoesNotReach: the one metric of an alert that is not ours.
func TestTheAPIServerCountsWhatItDoesNotReach(t *testing.T) {
	n := newTenant(t)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "web", Annotations: map[string]string{api.PolicyAnnotation: "shop"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.com/app:1"}}},
	}
	if err := shared.Create(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Fatalf("a pod without a manager: %v", err)
	}
	body, err := kubernetes.NewForConfigOrDie(shared.env.Config).RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, one := range alerts(t) {
		for _, found := range selector.FindAllStringSubmatch(one.Expr, -1) {
			if !strings.HasPrefix(found[1], "apiserver_") {
				continue
			}
			asked++
			there := false
			for line := range strings.Lines(string(body)) {
				matches := strings.HasPrefix(line, found[1]+"{")
				for part := range strings.SplitSeq(found[2], ",") {
					matches = matches && strings.Contains(line, part)
				}
				there = there || matches
			}
			if !there {
				t.Errorf("%s: the API server has no series %s", one.Alert, found[0])
			}
		}
	}
	if asked != 1 {
		t.Errorf("%d metrics of the API server were looked up, want 1", asked)
	}
}
