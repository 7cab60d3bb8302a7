// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/testenv"
)

var benchmark = regexp.MustCompile(`(?m)^func Benchmark(\w+)\(`)

// benchmarkIsThere checks a call of `go test` for a benchmark. It is not run: figures are
// not for tests.
func benchmarkIsThere(t *testing.T, what block, args []string) {
	t.Helper()
	if len(args) == 0 || args[0] != "test" {
		t.Errorf("%s: this test does not understand go %q: teach it", what, args)
		return
	}
	flags, folder := map[string]string{}, ""
	for i := 1; i < len(args); i++ {
		switch name, value, ok := strings.Cut(args[i], "="); {
		case !strings.HasPrefix(name, "-"):
			folder = name
		case ok:
			flags[name] = value
		case i+1 < len(args):
			i++
			flags[name] = args[i]
		}
	}
	wanted, err := regexp.Compile(flags["-bench"])
	if err != nil || flags["-bench"] == "" || flags["-run"] != "^$" || !strings.HasPrefix(folder, "./") {
		t.Errorf("%s: go %q is no call for benchmarks alone (%v)", what, args, err)
		return
	}
	files, err := filepath.Glob(filepath.Join(testenv.Root(), folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range benchmark.FindAllStringSubmatch(string(content), -1) {
			if wanted.MatchString(match[1]) {
				return
			}
		}
	}
	t.Errorf("%s: %s has no benchmark %s", what, folder, flags["-bench"])
}
