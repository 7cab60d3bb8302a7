// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package standstill

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAPauseIsNoticedAndForgotten(t *testing.T) {
	for name, first := range map[string]func(w *Watch){
		"by the watch":   func(*Watch) { time.Sleep(beat); synctest.Wait() },
		"by who asks it": func(w *Watch) { w.Lasted() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var paused atomic.Int64
				w := New(func() time.Time { return time.Now().Add(time.Duration(paused.Load())) })
				ctx, end := context.WithCancel(t.Context())
				go w.Run(ctx)
				defer end()
				time.Sleep(time.Minute)
				paused.Add(int64(1400 * time.Millisecond))
				if got := w.Lasted(); got != 0 {
					t.Errorf("a busy machine: %s", got)
				}
				time.Sleep(time.Minute)
				paused.Add(int64(30 * time.Second))
				first(w)
				if got := w.Lasted(); got < 30*time.Second || got > 32*time.Second {
					t.Errorf("a pause of 30 s: %s", got)
				}
				time.Sleep(time.Second)
				if got := w.Lasted(); got < 31*time.Second || got > 33*time.Second {
					t.Errorf("1 s later: %s", got)
				}
				time.Sleep(2 * time.Second)
				if got := w.Lasted(); got != 0 {
					t.Errorf("long afterwards: %s", got)
				}
			})
		})
	}
}
