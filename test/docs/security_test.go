// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/testenv"
)

var (
	testName      = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+`)
	qualifiedTest = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Z]\\w+)`")
)

// TestEveryTestNamedInTheSecurityPageExists looks for each in the package that the page names.
func TestEveryTestNamedInTheSecurityPageExists(t *testing.T) {
	page := read(t, "docs/security.md")
	named := qualifiedTest.FindAllStringSubmatch(page, -1)
	if all := testName.FindAllString(page, -1); len(all) != len(named) || len(named) < 50 {
		t.Errorf("%d tests are named, %d of them as `package.Test`", len(all), len(named))
	}
	for _, match := range named {
		files, err := filepath.Glob(filepath.Join(testenv.Root(), match[1], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		declared := regexp.MustCompile(`(?m)^func ` + match[2] + `\(`)
		found := false
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || declared.Match(content)
		}
		if !found {
			t.Errorf("docs/security.md names %s in %s, and there is no such test", match[2], match[1])
		}
	}
}

// TestPermissionsAreTheWrittenOnes compares the page with the lists that test/installer
// compares with what the API server allows.
func TestPermissionsAreTheWrittenOnes(t *testing.T) {
	page := read(t, "docs/security.md")
	for heading, account := range map[string]string{"Manager": "tokenward-manager", "Issuer": "tokenward-issuer"} {
		everywhere, home, ok := strings.Cut(read(t, "test/installer/testdata/"+account+".txt"), "\nIn "+operatorNamespace+":\n")
		if !ok {
			t.Fatalf("the list of %s has not the form that this test knows", account)
		}
		lines := func(list string) map[string]bool {
			found := map[string]bool{}
			for line := range strings.Lines(list) {
				if rule, ok := strings.CutPrefix(line, "  "); ok {
					found[strings.TrimSpace(rule)] = true
				}
			}
			return found
		}
		cluster, besides := lines(everywhere), lines(home)
		maps.DeleteFunc(besides, func(rule string, _ bool) bool { return cluster[rule] })
		same(t, account+" may, everywhere,", cluster, column(section(t, page, "### "+heading+", in all namespaces"), 0))
		same(t, account+" may, at home,", besides, column(section(t, page, "### "+heading+", in tokenward-system besides"), 0))
	}
}

// TestEveryRowOfTheThreatModelIsInTheSecurityPage: 35 rows, each once.
func TestEveryRowOfTheThreatModelIsInTheSecurityPage(t *testing.T) {
	const rows = 35
	seen := map[int]int{}
	for _, match := range regexp.MustCompile(`(?m)^\| ([0-9]+) \|`).FindAllStringSubmatch(read(t, "docs/security.md"), -1) {
		number, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		seen[number]++
	}
	for number := 1; number <= rows; number++ {
		if seen[number] != 1 {
			t.Errorf("row %d is there %d times", number, seen[number])
		}
	}
	if len(seen) != rows {
		t.Errorf("%d rows, want %d", len(seen), rows)
	}
}
