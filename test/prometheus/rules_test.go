// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package prometheus_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/tokenward/tokenward/internal/testenv"
	"github.com/tokenward/tokenward/internal/testservers"
)

// rule is an alert.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type ruleFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

const alertsPath = "config/prometheus/alerts.yaml"

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(testenv.Root(), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// rules are those of the file, which has one group.
func rules(t *testing.T) []rule {
	t.Helper()
	var file ruleFile
	if err := yaml.UnmarshalStrict(read(t, alertsPath), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || file.Groups[0].Name != "tokenward" || len(file.Groups[0].Rules) < 12 {
		t.Fatalf("%s is not the group tokenward with all its alerts: %+v", alertsPath, file)
	}
	return file.Groups[0].Rules
}

// cases are files for `promtool test rules`, as far as these tests look into them.
type cases struct {
	Tests []struct {
		Name            string `json:"name"`
		AlertRuleChecks []struct {
			Alert    string `json:"alertname"`
			Expected []any  `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	} `json:"tests"`
}

// caseFiles are the files of testdata by name.
func caseFiles(t *testing.T) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	files := map[string][]byte{}
	for _, name := range names {
		if files[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestAlertsAreAcceptedByPrometheus(t *testing.T) {
	if output, err := testservers.Promtool(t, testenv.Root(), "check", "rules", "--lint=all", "--lint-fatal", alertsPath); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
	name := regexp.MustCompile(`^Tokenward[A-Z][A-Za-z]+$`)
	for _, r := range rules(t) {
		if !name.MatchString(r.Alert) {
			t.Errorf("the name %s is not in CamelCase with the prefix Tokenward", r.Alert)
		}
		if severity := r.Labels["severity"]; severity != "critical" && severity != "warning" || len(r.Labels) != 1 {
			t.Errorf("%s has the labels %v, want severity alone, critical or warning", r.Alert, r.Labels)
		}
		if r.Labels["severity"] == "critical" && r.For == "" {
			t.Errorf("%s wakes somebody at once", r.Alert)
		}
		if !slices.Equal(slices.Sorted(maps.Keys(r.Annotations)), []string{"description", "summary"}) {
			t.Errorf("%s has the annotations %v, want summary and description", r.Alert, r.Annotations)
		}
	}
}

func TestEachAlertFiresAndDoesNot(t *testing.T) {
	files := caseFiles(t)
	arguments := append([]string{"test", "rules"}, slices.Sorted(maps.Keys(files))...)
	if output, err := testservers.Promtool(t, filepath.Join(testenv.Root(), "test", "prometheus", "testdata"), arguments...); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for name, content := range files {
		var found cases
		if err := yaml.Unmarshal(content, &found); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, one := range found.Tests {
			for _, check := range one.AlertRuleChecks {
				fires[check.Alert] = fires[check.Alert] || len(check.Expected) > 0
				silent[check.Alert] = silent[check.Alert] || len(check.Expected) == 0
			}
		}
	}
	for _, r := range rules(t) {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: a case where it fires %t, a case where it does not %t: testdata needs both", r.Alert, fires[r.Alert], silent[r.Alert])
		}
		delete(fires, r.Alert)
		delete(silent, r.Alert)
	}
	if len(fires)+len(silent) > 0 {
		t.Errorf("cases of alerts that there are not: %v, %v", fires, silent)
	}
}

var (
	threshold = regexp.MustCompile(`> ([0-9.]+)`)
	within    = regexp.MustCompile(`\[(\d+)m\]`)
	group     = regexp.MustCompile(`\b(?:by|without) \([^)]*\)`)
	selected  = regexp.MustCompile(`\{[^}]*\}`)
	minutes   = regexp.MustCompile(`^(\d+)m$`)
)

// changes are expressions and durations that somebody could have written by mistake.
func changes(t *testing.T, r rule) map[string]rule {
	t.Helper()
	changed := map[string]rule{}
	replace := func(what string, expression *regexp.Regexp, by func(string) string) {
		for _, at := range expression.FindAllStringIndex(r.Expr, -1) {
			other := r
			other.Expr = r.Expr[:at[0]] + by(r.Expr[at[0]:at[1]]) + r.Expr[at[1]:]
			changed[fmt.Sprintf("%s at %d", what, at[0])] = other
		}
	}
	replace("half of the threshold, or below 0", threshold, func(found string) string {
		value := number(t, found[2:])
		if value == 0 {
			return "> -1"
		}
		return fmt.Sprintf("> %g", value/2)
	})
	replace("twice the threshold, or 1000", threshold, func(found string) string {
		value := number(t, found[2:])
		if value == 0 {
			return "> 1000"
		}
		return fmt.Sprintf("> %g", 2*value)
	})
	replace("no grouping", group, func(string) string { return "" })
	replace("every series of the metric", selected, func(string) string { return "" })
	if r.For != "" {
		found := minutes.FindStringSubmatch(r.For)
		if found == nil {
			t.Fatalf("%s: for is %q, want minutes", r.Alert, r.For)
		}
		for what, factor := range map[string]float64{"half of for": 0.5, "twice for": 2} {
			other := r
			other.For = fmt.Sprintf("%gs", number(t, found[1])*60*factor)
			changed[what] = other
		}
		// Otherwise one event, which is within the range for so long, is enough.
		for _, match := range within.FindAllStringSubmatch(r.Expr, -1) {
			if number(t, match[1]) >= number(t, found[1]) {
				t.Errorf("%s: the range of %s m is not below for, %s", r.Alert, match[1], r.For)
			}
		}
	}
	return changed
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestTheCasesNoticeEveryChange changes one thing in one alert, and a case has to fail.
func TestTheCasesNoticeEveryChange(t *testing.T) {
	made := 0
	for _, r := range rules(t) {
		folder := casesOf(t, r.Alert)
		if output, err := try(t, folder, r); err != nil {
			t.Errorf("%s unchanged: %v\n%s", r.Alert, err, output)
		}
		for what, changed := range changes(t, r) {
			made++
			if output, err := try(t, folder, changed); err == nil || !strings.Contains(output, "alertname: "+r.Alert) {
				t.Errorf("%s with %s (for %s): %s\nno case notices: %v\n%s", r.Alert, what, changed.For, changed.Expr, err, output)
			}
		}
	}
	if made < 60 {
		t.Errorf("only %d changes were made", made)
	}
}

// casesOf makes a folder with the cases of one alert, for [try].
func casesOf(t *testing.T, alert string) string {
	t.Helper()
	var picked []any
	for name, content := range caseFiles(t) {
		var file struct {
			Tests []map[string]any `json:"tests"`
		}
		if err := yaml.Unmarshal(content, &file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, one := range file.Tests {
			if strings.Contains(fmt.Sprint(one["alert_rule_test"]), "alertname:"+alert+" ") {
				picked = append(picked, one)
			}
		}
	}
	folder := t.TempDir()
	write(t, filepath.Join(folder, "cases.yaml"), map[string]any{"rule_files": []string{"alerts.yaml"}, "evaluation_interval": "1m", "tests": picked})
	return folder
}

// try runs the cases of a folder with one rule.
func try(t *testing.T, folder string, r rule) (string, error) {
	t.Helper()
	write(t, filepath.Join(folder, "alerts.yaml"), map[string]any{"groups": []any{map[string]any{"name": "tokenward", "rules": []rule{r}}}})
	return testservers.Promtool(t, folder, "test", "rules", "cases.yaml")
}

func write(t *testing.T, path string, document any) {
	t.Helper()
	content, err := yaml.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
