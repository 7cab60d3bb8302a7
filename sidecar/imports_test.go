// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// dependencies are all packages that a package links.
func dependencies(t *testing.T, of string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", of).Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 20 {
		t.Fatalf("%s has %d dependencies: the list is not to be trusted", of, len(deps))
	}
	return deps
}

// TestTheSidecarStaysSmall: it runs beside every application (design section 2).
func TestTheSidecarStaysSmall(t *testing.T) {
	ours := map[string]bool{"internal/token": true, "internal/settings": true, "internal/protocol": true, "internal/flight": true, "internal/probe": true}
	allowed := []string{"github.com/golang-jwt/jwt/v5", "github.com/fsnotify/fsnotify", "golang.org/x/sys/", "golang.org/x/crypto/", "vendor/"}
	for _, dep := range dependencies(t, ".") {
		if rest, ok := strings.CutPrefix(dep, "github.com/tokenward/tokenward/"); ok {
			if !ours[rest] && rest != "sidecar" && !strings.HasPrefix(rest, "sidecar/") {
				t.Errorf("the sidecar links %s", dep)
			}
			continue
		}
		if first, _, _ := strings.Cut(dep, "/"); !strings.Contains(first, ".") {
			continue // the standard library
		}
		known := false
		for _, prefix := range allowed {
			known = known || strings.HasPrefix(dep, prefix)
		}
		if !known {
			t.Errorf("the sidecar links %s: it must stay small, see docs/dependencies.md", dep)
		}
	}
	for _, dep := range dependencies(t, ".") {
		if dep == "database/sql" {
			t.Error("the sidecar links a database")
		}
	}
}

// TestDecidingKnowsNoHTTPLibrary: another front end shares it (performance.md).
func TestDecidingKnowsNoHTTPLibrary(t *testing.T) {
	for _, of := range []string{"./decide", "./framing"} {
		for _, dep := range dependencies(t, of) {
			if dep == "net/http" || strings.HasPrefix(dep, "net/http/") {
				t.Errorf("%s links %s", of, dep)
			}
		}
	}
}
