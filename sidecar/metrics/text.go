// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bufio"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// ContentType of what WriteTo writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// registry keeps families in the order in which they were made.
type registry struct {
	mu       sync.Mutex
	families []*family
}

// family is all series of one name.
type family struct {
	name, help, kind string
	series           []series
}

// series writes its samples.
type series interface {
	write(w *bufio.Writer, name string)
}

func (r *registry) family(name, help, kind string) *family {
	f := &family{name: name, help: help, kind: kind}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.families = append(r.families, f)
	return f
}

// labels renders pairs of name and value. Values come from closed sets of words and
// need no escaping.
func labels(pairs []string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pairs[i] + `="` + pairs[i+1] + `"`)
	}
	return b.String()
}

func sample(w *bufio.Writer, name, labels string, value float64) {
	_, _ = w.WriteString(name)
	if labels != "" {
		_, _ = w.WriteString("{" + labels + "}")
	}
	_, _ = w.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

// counter only goes up.
type counter struct {
	labels string
	n      atomic.Int64
}

func (f *family) counter(pairs ...string) *counter {
	c := &counter{labels: labels(pairs)}
	f.series = append(f.series, c)
	return c
}

func (c *counter) add(n int64) { c.n.Add(n) }

func (c *counter) write(w *bufio.Writer, name string) { sample(w, name, c.labels, float64(c.n.Load())) }

type gauge func() float64

func (f *family) gauge(read func() float64) { f.series = append(f.series, gauge(read)) }

func (g gauge) write(w *bufio.Writer, name string) { sample(w, name, "", g()) }

// bounds are the upper bounds of a histogram's buckets, in seconds.
var bounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

type histogram struct {
	labels  string
	buckets [len(bounds) + 1]atomic.Int64
	sum     atomic.Uint64 // bits of a float64
}

func (f *family) histogram(pairs ...string) *histogram {
	h := &histogram{labels: labels(pairs)}
	f.series = append(f.series, h)
	return h
}

func (h *histogram) observe(v float64) {
	i := 0
	for i < len(bounds) && v > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

func (h *histogram) write(w *bufio.Writer, name string) {
	var total int64
	for i := range h.buckets {
		total += h.buckets[i].Load()
		bound := "+Inf"
		if i < len(bounds) {
			bound = strconv.FormatFloat(bounds[i], 'g', -1, 64)
		}
		sample(w, name+"_bucket", h.labels+`,le="`+bound+`"`, float64(total))
	}
	sample(w, name+"_sum", h.labels, math.Float64frombits(h.sum.Load()))
	sample(w, name+"_count", h.labels, float64(total))
}

// Write writes all families in the Prometheus text format.
func (m *Metrics) Write(out io.Writer) error {
	m.registry.mu.Lock()
	families := slices.Clip(m.registry.families)
	m.registry.mu.Unlock()
	w := bufio.NewWriter(out)
	for _, f := range families {
		_, _ = w.WriteString("# HELP " + f.name + " " + f.help + "\n# TYPE " + f.name + " " + f.kind + "\n")
		for _, s := range f.series {
			s.write(w, f.name)
		}
	}
	return w.Flush()
}
