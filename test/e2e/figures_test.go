// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// figures are what was measured. They are printed at the end and never asserted: a
// machine may be as slow as it likes.
type figures struct {
	mu   sync.Mutex
	rows []string
}

// add notes one row: what was measured, and what came out.
func (f *figures) add(what, result string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows = append(f.rows, what+"\t"+fmt.Sprintf(result, args...))
}

func (f *figures) writeTo(out io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.rows) == 0 {
		return
	}
	slices.Sort(f.rows)
	_, _ = fmt.Fprintf(out, "\nMeasured on %d CPUs at a load average of %s:\n\n", runtime.NumCPU(), loadAverage())
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, row := range f.rows {
		_, _ = fmt.Fprintln(table, "  "+row)
	}
	_ = table.Flush()
	_, _ = fmt.Fprintln(out)
}

// loadAverage is that of one, five and fifteen minutes, of the machine that tests.
func loadAverage() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown size"
	}
	return strings.Join(strings.Fields(string(content))[:3], " ")
}

// spread is the median, the 90th percentile and the largest of durations.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(percent int) time.Duration {
		return sorted[(len(sorted)-1)*percent/100].Round(time.Millisecond)
	}
	return fmt.Sprintf("median %s, p90 %s, most %s of %d", at(50), at(90), at(100), len(sorted))
}
