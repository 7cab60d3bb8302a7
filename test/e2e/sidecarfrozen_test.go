// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSidecarFrozen has the sidecar of one of two pods stand still under load, for longer
// than a token lives. Its clients go elsewhere meanwhile; when it goes on, it reads what
// they had sent to it, with tokens that were exchanged long ago. That may be refused, and
// must log nobody out.
func TestSidecarFrozen(t *testing.T) {
	namespace := startWorkloads(t, "frozen")
	pods, err := deploymentPods(t.Context(), namespace, "frozen")
	if err != nil {
		t.Fatal(err)
	}
	o := offer(t, namespace, "frozen", 100)
	allJoined(t, []*offered{o})
	freeze(t, &pods[0], "/tokenward-sidecar", 40*time.Second)
	settled(t, namespace, "frozen")
	leadsToAll(t, shopURL(namespace, "frozen"), 2)

	r := o.report(t)
	if r.LetIn != 0 || r.Unguarded != 0 {
		t.Errorf("%d requests were let in by mistake and %d reached the application unguarded: %s", r.LetIn, r.Unguarded, describeLoad(r))
	}
	for what, count := range r.Failed {
		late := strings.HasPrefix(what, "no answer: ") || strings.HasPrefix(what, "status 403 token_reused") || strings.HasPrefix(what, "status 503 issuer_unavailable")
		if !late {
			t.Errorf("%d x %s: only what the frozen sidecar had may fail: %s", count, what, describeLoad(r))
		}
	}
	world.figures.add("sidecar stood still for 40 s", "%d of %d requests lost with it, %d let in by mistake", r.Failures(), r.Sent, r.LetIn+r.Unguarded)
	during(t, "afterwards", []*offered{o}, func(t *testing.T) {
		t.Helper()
		err := until(t.Context(), func(context.Context) error {
			if now := o.report(t); now.NewTokens < r.NewTokens+2*o.sessions {
				return fmt.Errorf("%d new tokens since the sidecar went on, expected %d", now.NewTokens-r.NewTokens, 2*o.sessions)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Log(describeLoad(o.stop(t)))
}
