// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package repository_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/testenv"
)

// TestTestsSleepInBubblesOnly: a sleep on the real clock makes a test slow and, on a
// busy machine, wrong. In a bubble of testing/synctest it is neither.
func TestTestsSleepInBubblesOnly(t *testing.T) {
	root := testenv.Root()
	read := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "bin" || path != root && strings.HasPrefix(entry.Name(), ".")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		read++
		sleep := []byte("time" + ".Sleep(") // in two parts, or this file would be found
		if bytes.Contains(content, sleep) && !bytes.Contains(content, []byte(`"testing/synctest"`)) {
			name, _ := filepath.Rel(root, path)
			t.Errorf("%s sleeps without testing/synctest: wait for a condition instead", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read == 0 {
		t.Error("no test found: the test looks in the wrong place")
	}
}
