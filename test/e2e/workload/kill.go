// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// kill sends SIGKILL to the one process that runs program, which it sees when the pod's
// containers share their process namespace.
func kill(proc string, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: workload kill PROGRAM")
	}
	program := args[0]
	entries, err := os.ReadDir(proc)
	if err != nil {
		return err
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
		if path, _, _ := bytes.Cut(line, []byte{0}); string(path) == program {
			found = append(found, number)
		}
	}
	if len(found) != 1 {
		return fmt.Errorf("%d processes run %s: expected one, in a pod with shareProcessNamespace", len(found), program)
	}
	if err := syscall.Kill(found[0], syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", program, err)
	}
	return nil
}
