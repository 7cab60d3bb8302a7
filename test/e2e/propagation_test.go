// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// slowestToTake says how long after began the last of these pods took a newer policy than
// the one before: the manager's work, the delay of the kubelets, and the sidecar's own.
// Each sidecar logs what it takes.
func slowestToTake(t *testing.T, namespace string, before map[string]inForce, began time.Time) time.Duration {
	t.Helper()
	var slowest time.Duration
	for pod, was := range before {
		logs, err := world.kube.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: "tokenward"}).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		took := time.Duration(-1)
		for line := range strings.Lines(string(logs)) {
			var said struct {
				Time       time.Time
				Msg        string
				Generation int64
			}
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				t.Fatalf("pod %s logs a line that is no JSON: %q", pod, line)
			}
			if said.Msg == "settings are in force" && said.Generation > was.Generation {
				took = said.Time.Sub(began)
				break
			}
		}
		if took < 0 {
			t.Fatalf("pod %s does not log that it took a policy newer than generation %d", pod, was.Generation)
		}
		slowest = max(slowest, took)
	}
	return slowest
}
