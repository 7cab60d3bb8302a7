// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package repository_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/testenv"
)

// TestEveryDependencyHasItsReason compares go.mod with docs/dependencies.md. The page
// has two tables for the programs and their tests, and one for hack/tools.
func TestEveryDependencyHasItsReason(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(testenv.Root(), "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	page, tools, found := strings.Cut(string(content), "\n## Tools\n")
	if !found {
		t.Fatal("docs/dependencies.md has no section Tools")
	}
	for folder, section := range map[string]string{".": page, "hack/tools": tools} {
		modules, documented := directModules(t, folder), reasons(t, section)
		for _, module := range modules {
			if !slices.Contains(documented, module) {
				t.Errorf("%s/go.mod requires %s: write its reason into docs/dependencies.md", folder, module)
			}
		}
		for _, module := range documented {
			if !slices.Contains(modules, module) {
				t.Errorf("docs/dependencies.md has a line for %s, which %s/go.mod does not require itself: remove it", module, folder)
			}
		}
	}
}

// directModules are the modules that the code of a folder imports itself, or runs as tools.
func directModules(t *testing.T, folder string) []string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	command.Dir = filepath.Join(testenv.Root(), folder)
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go mod edit -json in %s: %v", folder, err)
	}
	var file struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Tool []struct{ Path string }
	}
	if err := json.Unmarshal(output, &file); err != nil {
		t.Fatal(err)
	}
	var direct []string
	for _, module := range file.Require {
		runs := slices.ContainsFunc(file.Tool, func(tool struct{ Path string }) bool {
			return tool.Path == module.Path || strings.HasPrefix(tool.Path, module.Path+"/")
		})
		if !module.Indirect || runs {
			direct = append(direct, module.Path)
		}
	}
	if len(direct) == 0 {
		t.Fatalf("no direct dependency in %s/go.mod", folder)
	}
	return direct
}

var reasonLine = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\|$")

// reasons are the modules that have a line with a reason.
func reasons(t *testing.T, section string) []string {
	t.Helper()
	var modules []string
	for _, line := range reasonLine.FindAllStringSubmatch(section, -1) {
		if len(strings.Fields(line[2])) < 3 {
			t.Errorf("the reason for %s is %q: say why", line[1], line[2])
		}
		modules = append(modules, line[1])
	}
	return modules
}
