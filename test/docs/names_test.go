// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// inCode collects the first group of every match in the source.
func inCode(t *testing.T, pattern string, folders ...string) map[string]bool {
	t.Helper()
	expression, found := regexp.MustCompile(pattern), map[string]bool{}
	sources(t, func(_, content string) {
		for _, match := range expression.FindAllStringSubmatch(content, -1) {
			found[match[1]] = true
		}
	}, folders...)
	if len(found) == 0 {
		t.Fatalf("nothing matches %s: the test looks in the wrong place", pattern)
	}
	return found
}

// same compares what the code has with what a page says, both ways.
func same(t *testing.T, what string, code map[string]bool, page []string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(code)) {
		if !slices.Contains(page, name) {
			t.Errorf("%s %s is in the code and not in the page", what, name)
		}
	}
	for _, name := range page {
		if !code[name] {
			t.Errorf("%s %s is in the page and not in the code", what, name)
		}
	}
}

func TestEveryReasonOfAConditionIsExplained(t *testing.T) {
	page := section(t, read(t, "docs/operations.md"), "## Conditions")
	same(t, "condition", conditionTypes(t), column(page, 0))
	same(t, "reason", inCode(t, `(?m)^\tReason\w+ += "(\w+)"`, "api/v1alpha1/conditions.go"), column(page, 1))
}

func conditionTypes(t *testing.T) map[string]bool {
	t.Helper()
	return inCode(t, `(?m)^\tCondition\w+ += "(\w+)"`, "api/v1alpha1/conditions.go")
}

func TestEveryEventIsExplained(t *testing.T) {
	page := spans(section(t, read(t, "docs/operations.md"), "### Events"))
	events := inCode(t, `(?m)^\t(\w+) +EventType = `, "internal/keyring")
	maps.Copy(events, inCode(t, `(?m)^\t\w+ +Event += "(\w+)"`, "issuer/orders"))
	for event := range events {
		if !slices.Contains(page, event) {
			t.Errorf("the event %s is not explained", event)
		}
	}
}

func TestEveryVerdictOnAPodIsExplained(t *testing.T) {
	page := section(t, read(t, "docs/operations.md"), "## Pods that are refused")
	same(t, "verdict", inCode(t, `(?m)\b\w+ +Verdict = "(\w+)"`, "controllers/injection"), column(page, 0))
}

// TestEveryMetricIsExplained: names are string literals in the sidecar and the issuer; in
// the manager a namespace and a name.
func TestEveryMetricIsExplained(t *testing.T) {
	code := inCode(t, `"(tokenward_(?:sidecar|issuer)_[a-z_]+)"`)
	for name := range inCode(t, `Namespace: "tokenward",\s+Name: +"([a-z_]+)"`) {
		code["tokenward_"+name] = true
	}
	if len(code) < 25 {
		t.Errorf("only %d metrics found", len(code))
	}
	page := column(section(t, read(t, "docs/operations.md"), "## Metrics"), 0)
	same(t, "metric", code, page)
	if len(page) != len(code) {
		t.Errorf("%d rows for %d metrics", len(page), len(code))
	}
	for _, name := range documents(t) {
		for _, metric := range regexp.MustCompile(`tokenward_[a-z_]+`).FindAllString(read(t, name), -1) {
			if !code[strings.TrimSuffix(metric, "_bucket")] {
				t.Errorf("%s names the metric %s, which there is not", name, metric)
			}
		}
	}
}

func TestEveryLogLineIsInTheCode(t *testing.T) {
	literals := inCode(t, `"([^"\n]+)"`)
	lines := column(section(t, read(t, "docs/operations.md"), "## Logs"), 1)
	if len(lines) < 15 {
		t.Errorf("only %d log lines found", len(lines))
	}
	for _, line := range lines {
		if !literals[line] {
			t.Errorf("no part logs %q", line)
		}
	}
}

func TestFlagsAreThoseOfTheCommand(t *testing.T) {
	flags := inCode(t, `flags(?:\(\)|)?\.(?:String|StringSlice|Bool|Int|Duration)Var\([^,]+, "([a-z-]+)"`, "main.go")
	maps.Copy(flags, inCode(t, `Flags\(\)\.(?:String|StringSlice|Bool|Int|Duration)Var\([^,]+, "([a-z-]+)"`, "main.go"))
	var page []string
	for _, name := range spans(section(t, read(t, "docs/operations.md"), "## Install")) {
		if flag, ok := strings.CutPrefix(name, "--"); ok {
			page = append(page, flag)
		}
	}
	same(t, "flag", flags, page)
	for _, name := range documents(t) {
		for _, code := range spans(read(t, name)) {
			flag, ok := strings.CutPrefix(code, "--")
			if flag, _, _ = strings.Cut(flag, "="); ok && !flags[flag] {
				t.Errorf("%s names the flag --%s, which there is not", name, flag)
			}
		}
	}
}

func TestPortsAreThoseThatAreListenedAt(t *testing.T) {
	ports := inCode(t, `(?:Listen|Admin)Port += (\d+)`, "controllers/injection")
	for _, match := range regexp.MustCompile(`containerPort: (\d+)`).FindAllStringSubmatch(read(t, "dist/install.yaml"), -1) {
		ports[match[1]] = true
	}
	same(t, "port", ports, column(section(t, read(t, "docs/operations.md"), "## Install"), 1))
}

func targets(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, match := range regexp.MustCompile(`(?m)^([a-z0-9-]+):.*## `).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		found = append(found, match[1])
	}
	if len(found) < 10 {
		t.Fatalf("targets %v", found)
	}
	return found
}

func TestTargetsAreThoseOfTheMakefile(t *testing.T) {
	known, seen := targets(t), 0
	for _, name := range append(documents(t), "CONTRIBUTING.md") {
		for _, code := range spans(fence.ReplaceAllString(read(t, name), "")) {
			words, ok := strings.CutPrefix(code, "make ")
			if !ok {
				continue
			}
			for word := range strings.FieldsSeq(words) {
				seen++
				if !strings.Contains(word, "=") && !slices.Contains(known, word) {
					t.Errorf("%s names `%s`, and there is no target %s", name, code, word)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no target found: the test looks in the wrong place")
	}
}

// namesOfOurs are the annotations, labels, finalizers and groups below tokenward.io.
func namesOfOurs(t *testing.T) map[string]bool {
	t.Helper()
	names := inCode(t, `AnnotationPrefix \+ "([a-z-]+)"`)
	names["v1alpha1"], names[""] = true, true
	return names
}

func TestNamesOfOursAreKnown(t *testing.T) {
	known, seen := namesOfOurs(t), 0
	for _, name := range documents(t) {
		if name == "docs/reference.md" {
			continue // generated from the types
		}
		for _, match := range regexp.MustCompile(`tokenward\.io/([a-z0-9{},-]*)`).FindAllStringSubmatch(read(t, name), -1) {
			for _, word := range expand(match[1]) {
				seen++
				if !known[strings.TrimRight(word, ",-")] {
					t.Errorf("%s names tokenward.io/%s, which there is not", name, word)
				}
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d names found", seen)
	}
}

var brace = regexp.MustCompile(`\{([a-z,]+)\}`)

// expand is what a shell makes of braces.
func expand(word string) []string {
	at := brace.FindStringSubmatchIndex(word)
	if at == nil {
		return []string{word}
	}
	var words []string
	for choice := range strings.SplitSeq(word[at[2]:at[3]], ",") {
		words = append(words, expand(fmt.Sprint(word[:at[0]], choice, word[at[1]:]))...)
	}
	return words
}
