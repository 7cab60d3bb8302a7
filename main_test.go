// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"strings"
	"testing"
)

// Below debug client-go logs the bodies of requests, with Secrets and tokens in them.
func TestNoLogLevelShowsTheBodiesOfRequests(t *testing.T) {
	for _, name := range []string{"debug-1", "DEBUG-4", "info-8", "-8", "trace", ""} {
		if level, err := parseLevel(name); err == nil || !strings.Contains(err.Error(), "use debug, info, warn or error") {
			t.Errorf("%q is taken for %v, %v", name, level, err)
		}
	}
	for name, want := range map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := parseLevel(name); err != nil || got != want {
			t.Errorf("%q is %v, %v", name, got, err)
		}
	}
}
