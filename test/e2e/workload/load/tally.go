// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// So many failures are kept in a report, in all and of a sort.
const (
	maxExamples = 20
	maxAlike    = 4
)

// timeFormat is one that sorts: RFC 3339 with all its digits.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// tally counts. It is safe for concurrent use.
type tally struct {
	mu     sync.Mutex
	report Report
	took   []time.Duration // of what was OK
	late   time.Duration
}

func newTally() *tally {
	return &tally{report: Report{Failed: map[string]int{}, LastFailed: map[string]string{}, Pods: map[string]int{}}}
}

// outcome is what became of one request.
type outcome struct {
	due, ended time.Time
	// mustFail says that it was sent to be refused.
	mustFail bool
	failure  string // what went wrong, "" for what was as it should be
	letIn    bool
	unguarded,
	newToken bool
	pod, connection, answer string
}

// begin notes a request that is due and is sent now.
func (t *tally) begin(due, now time.Time, mustFail bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.late = max(t.late, now.Sub(due))
	if !mustFail {
		t.report.Sent++
	}
}

// failed notes a login that failed. It was sent when the one before it had ended, which may
// be long after it was due.
func (t *tally) failed(sent time.Time, what string) {
	t.end(outcome{due: sent, ended: time.Now(), failure: what})
}

func (t *tally) end(o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.report
	if o.newToken {
		r.NewTokens++
	}
	if o.letIn {
		r.LetIn++
	}
	if o.unguarded {
		r.Unguarded++
	}
	switch {
	case o.failure != "":
		at := o.due.UTC().Format(timeFormat)
		r.Failed[o.failure]++
		r.LastFailed[o.failure] = max(r.LastFailed[o.failure], at)
		// A few of each sort say more than many of one.
		if r.Failed[o.failure] <= maxAlike && len(r.Examples) < maxExamples {
			r.Examples = append(r.Examples, Failure{
				Time: at, After: milliseconds(o.ended.Sub(o.due)),
				Pod: o.pod, What: o.failure, Connection: o.connection, Answer: o.answer,
			})
		}
	case o.mustFail:
		r.Refused++
	default:
		r.OK++
		r.Pods[o.pod]++
		t.took = append(t.took, o.ended.Sub(o.due))
	}
}

func (t *tally) connected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report.Connections++
}

// snapshot is the report of now.
func (t *tally) snapshot() Report {
	t.mu.Lock()
	r := t.report
	r.Failed, r.LastFailed = maps.Clone(r.Failed), maps.Clone(r.LastFailed)
	r.Pods, r.Examples = maps.Clone(r.Pods), slices.Clone(r.Examples)
	r.Late = milliseconds(t.late)
	took := slices.Clone(t.took)
	t.mu.Unlock()
	slices.Sort(took)
	r.Latency = Latency{P50: quantile(took, 0.5), P99: quantile(took, 0.99), P999: quantile(took, 0.999), Max: quantile(took, 1)}
	return r
}

// quantile of sorted times: the smallest that so large a part of them does not exceed.
func quantile(sorted []time.Duration, part float64) Milliseconds {
	if len(sorted) == 0 {
		return 0
	}
	at := int(part*float64(len(sorted))+0.999999) - 1
	return milliseconds(sorted[min(max(at, 0), len(sorted)-1)])
}
