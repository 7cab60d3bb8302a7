// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

func TestMemoryLimitIsTheContainers(t *testing.T) {
	tests := map[string]struct {
		file, text, env string
		want            int64 // 0: unchanged
	}{
		"a limit of cgroup v2":    {file: "memory.max", text: "134217720\n", want: 134217720 / 10 * 9},
		"a limit of cgroup v1":    {file: "memory/memory.limit_in_bytes", text: "134217720\n", want: 134217720 / 10 * 9},
		"no limit in cgroup v2":   {file: "memory.max", text: "max\n"},
		"no limit in cgroup v1":   {file: "memory/memory.limit_in_bytes", text: "9223372036854771712\n"},
		"no cgroup":               {file: "other", text: "1"},
		"the user has set it":     {file: "memory.max", text: "134217720\n", env: "64MiB"},
		"a file that says naught": {file: "memory.max", text: ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := debug.SetMemoryLimit(-1)
			defer debug.SetMemoryLimit(before)
			dir := t.TempDir()
			path := filepath.Join(dir, test.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("GOMEMLIMIT", test.env)
			limitMemory(dir)
			want := test.want
			if want == 0 {
				want = before
			}
			if got := debug.SetMemoryLimit(-1); got != want {
				t.Fatalf("limit %d, want %d", got, want)
			}
		})
	}
}
