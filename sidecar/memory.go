// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory has the garbage collector work harder near the container's memory limit,
// which it does not know of, so that a burst costs processor time and not the process.
// A GOMEMLIMIT of the user's stands.
func limitMemory(cgroup string) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit, ok := containerLimit(cgroup); ok {
		debug.SetMemoryLimit(limit / 10 * 9) // the rest is for what the runtime does not count
	}
}

// containerLimit reads the limit in bytes (cgroup v2, then v1); false without one. A
// container sees its own cgroup at the root of the file system.
func containerLimit(cgroup string) (int64, bool) {
	for _, name := range []string{"memory.max", "memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(filepath.Join(cgroup, name)) //nolint:gosec // both are constants outside of tests
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		// "max" is none, and so is a number beyond any machine.
		return limit, err == nil && limit > 0 && limit < 1<<50
	}
	return 0, false
}
