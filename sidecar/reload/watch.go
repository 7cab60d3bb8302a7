// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"context"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollEvery is how often the file is looked at whatever the file system says: events
// get lost, and some volumes send none.
const pollEvery = 5 * time.Second

// Run checks the file at each event of its directory, and at each tick, until ctx
// ends. The kubelet changes a mounted ConfigMap by renaming a link in the directory,
// so that the directory is what must be watched.
func (l *Loader) Run(ctx context.Context) {
	events, stop := l.watch()
	defer stop()
	l.follow(ctx, events, time.Tick(pollEvery))
}

func (l *Loader) follow(ctx context.Context, events <-chan fsnotify.Event, ticks <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil
			}
		case <-ticks:
		}
		l.Check()
	}
}

// watch gives a nil channel when there is no watching: polling goes on.
func (l *Loader) watch() (events <-chan fsnotify.Event, stop func()) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		l.options.Log.Warn("changes of the settings are found by polling alone", "error", err)
		return nil, func() {}
	}
	if err := watcher.Add(l.options.Dir); err != nil {
		l.options.Log.Warn("changes of the settings are found by polling alone", "error", err)
	}
	go func() {
		// Errors mean lost events; the next tick makes up for them.
		for range watcher.Errors {
		}
	}()
	return watcher.Events, func() { _ = watcher.Close() }
}
