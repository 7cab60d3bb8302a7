// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// report collects the figures. Without a benchmark it is silent: the tests say all.
type report struct {
	out   io.Writer
	began time.Time
	mu    sync.Mutex
	rows  []row
}

type row struct{ figure, goal, measured, verdict, load string }

func newReport(benchmark bool, out io.Writer) *report {
	if !benchmark {
		out = io.Discard
	}
	return &report{out: out, began: time.Now()}
}

func (r *report) add(figure, goal, measured, verdict string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row{figure, goal, measured, verdict, loadAverage()})
}

// must runs a figure that must hold as a test of its own; measure says what came out. It
// returns whether it held; a figure that was not asked for (-test.run) has no row.
func (r *report) must(t *testing.T, figure, goal string, measure func(t *testing.T) string) bool {
	t.Helper()
	ran, measured, verdict := false, "did not come to its end", "passed"
	held := t.Run(figure, func(t *testing.T) {
		ran = true
		r.say("%s", figure)
		measured = measure(t)
	})
	if !held {
		verdict = "FAILED"
	}
	if ran {
		r.add(figure, goal, measured, verdict)
	}
	return held && ran
}

// time adds a time or a rate, which fails nobody: it says as much about the machine.
func (r *report) time(figure, goal, measured string, reached bool) {
	verdict := "reached"
	if !reached {
		verdict = "not reached"
	}
	r.add(figure, goal, measured, verdict)
}

// note adds what has no goal.
func (r *report) note(figure, measured string) { r.add(figure, "-", measured, "-") }

// say shows progress.
func (r *report) say(format string, values ...any) {
	_, _ = fmt.Fprintf(r.out, "[%4.0f s] "+format+"\n", slices.Insert(values, 0, any(time.Since(r.began).Seconds()))...)
}

func (r *report) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.out, "\n%d cores, %s; load is the average of a minute when the figure was done\n\n", runtime.NumCPU(), time.Since(r.began).Round(time.Second))
	table := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "FIGURE\tGOAL\tMEASURED\tRESULT\tLOAD")
	for _, row := range r.rows {
		_, _ = fmt.Fprintln(table, strings.Join([]string{row.figure, row.goal, row.measured, row.verdict, row.load}, "\t"))
	}
	_ = table.Flush()
}

// loadAverage is that of the last minute, where the system tells.
func loadAverage() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(content), " ")
	return first
}

// every says progress at most once in a while.
func (r *report) every(interval time.Duration) func(format string, values ...any) {
	var mu sync.Mutex
	last := time.Now()
	return func(format string, values ...any) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) >= interval {
			last = time.Now()
			r.say(format, values...)
		}
	}
}

// percentile of times, which it sorts.
func percentile(times []time.Duration, percent int) time.Duration {
	slices.Sort(times)
	if len(times) == 0 {
		return 0
	}
	return times[min(len(times)-1, len(times)*percent/100)]
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1e3) }
