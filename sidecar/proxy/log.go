// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/sidecar/decide"
	"github.com/tokenward/tokenward/sidecar/metrics"
)

// A reason may write this many lines at once, and so many a second in the long run;
// metrics count all of them.
const (
	logBurst  = 50
	logPerSec = 5
	maxLogged = 256 // bytes of a path
)

// denialLog writes a line for each denial, within bounds. It never writes a query, a
// header or any part of a token.
type denialLog struct {
	log     *slog.Logger
	metrics *metrics.Metrics
	now     func() time.Time

	mu      sync.Mutex
	buckets map[token.Reason]*bucket
}

type bucket struct {
	tokens     float64
	at         time.Time
	suppressed int
}

func newDenialLog(log *slog.Logger, m *metrics.Metrics, now func() time.Time) *denialLog {
	return &denialLog{log: log, metrics: m, now: now, buckets: map[token.Reason]*bucket{}}
}

// allow takes one line's worth; suppressed is how many were not written before it.
func (d *denialLog) allow(reason token.Reason) (suppressed int, ok bool) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.buckets[reason]
	if b == nil {
		b = &bucket{tokens: logBurst, at: now}
		d.buckets[reason] = b
	}
	b.tokens = min(logBurst, b.tokens+now.Sub(b.at).Seconds()*logPerSec)
	b.at = now
	if b.tokens < 1 {
		b.suppressed++
		return 0, false
	}
	b.tokens--
	suppressed, b.suppressed = b.suppressed, 0
	return suppressed, true
}

func (d *denialLog) write(x *exchange, reason token.Reason, v decide.Verdict, audited bool) {
	suppressed, ok := d.allow(reason)
	if !ok {
		d.metrics.LogSuppressed()
		return
	}
	attrs := []slog.Attr{slog.String("reason", string(reason)), slog.Bool("audited", audited)}
	if detail := detailOf(v.Err); detail != "" {
		attrs = append(attrs, slog.String("detail", detail))
	}
	attrs = append(attrs, slog.String("method", clip(x.request.Method, 32)), slog.String("path", clip(v.Path, maxLogged)), slog.String("client", clientAddress(x.request)))
	if v.Rule >= 0 {
		attrs = append(attrs, slog.Int("rule", v.Rule))
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	d.log.LogAttrs(x.request.Context(), slog.LevelInfo, "request denied", attrs...)
}

// detailOf is what the verifier or the issuer's client said. Neither ever says
// anything of a token.
func detailOf(err error) string {
	if e, ok := errors.AsType[*token.Error](err); ok && e.Detail != "" && e.Reason != token.IssuerUnavailable {
		return e.Detail
	}
	if err != nil && refusalOf(err) == nil {
		return clip(err.Error(), 512)
	}
	return ""
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
