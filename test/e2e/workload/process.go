// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// processes that run program, and belong to the pod with this UID unless it is empty.
func processes(proc, program, pod string) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline")) //nolint:gosec // proc is a constant of ours
		if err != nil {
			continue // it has ended meanwhile
		}
		if path, _, _ := bytes.Cut(line, []byte{0}); string(path) != program {
			continue
		}
		groups, err := os.ReadFile(filepath.Join(proc, e.Name(), "cgroup")) //nolint:gosec // as above
		if err != nil {
			continue
		}
		// With the systemd driver the UID has underscores.
		if bytes.Contains(bytes.ReplaceAll(groups, []byte("_"), []byte("-")), []byte(pod)) {
			found = append(found, number)
		}
	}
	return found, nil
}

// theProcess is the one that runs program.
func theProcess(proc, program, pod string) (int, error) {
	found, err := processes(proc, program, pod)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d processes run %s, expected one: is the process namespace shared?", len(found), program)
	}
	if err != nil {
		return 0, err
	}
	return found[0], nil
}
