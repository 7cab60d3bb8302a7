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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestSidecarKilled has the sidecar of one of two pods die under load. What was on its way
// there fails, and nothing else; nothing passes unchecked, and the sidecar comes back.
func TestSidecarKilled(t *testing.T) {
	namespace := startWorkloadsOf(t, map[string]any{"SharedProcesses": true}, "killed")
	noneBare(t, namespace)
	pods, err := deploymentPods(t.Context(), namespace, "killed")
	if err != nil {
		t.Fatal(err)
	}
	victim := pods[0].Name
	o := offer(t, namespace, "killed", 100)

	killed := time.Now().Truncate(time.Second) // as precise as conditions are
	killSidecar(t, namespace, victim)
	var back *corev1.Pod
	err = until(t.Context(), func(ctx context.Context) (err error) {
		if back, err = world.kube.CoreV1().Pods(namespace).Get(ctx, victim, metav1.GetOptions{}); err != nil {
			return err
		}
		if restarts := restartsOf(back, "tokenward"); restarts != 1 || !isReady(back) {
			return fmt.Errorf("pod %s: the sidecar was started %d times more, expected 1, and the pod is ready: %t", victim, restarts, isReady(back))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if restarts := restartsOf(back, "app"); restarts != 0 {
		t.Errorf("the application was started %d times more: it has nothing to do with its sidecar's end", restarts)
	}
	for _, c := range back.Status.Conditions {
		if c.Type == corev1.PodReady && c.LastTransitionTime.Time.Before(killed) {
			t.Errorf("pod %s was ready all the time, so its Service led to it while nobody answered", victim)
		}
	}
	leadsToAll(t, shopURL(namespace, "killed"), 2)

	r := o.report(t)
	if r.LetIn != 0 || r.Unguarded != 0 {
		t.Errorf("%d requests were let in by mistake and %d reached the application unguarded: %s", r.LetIn, r.Unguarded, describeLoad(r))
	}
	for what, count := range r.Failed {
		if !strings.HasPrefix(what, "no answer: ") {
			t.Errorf("%d x %s: only requests to the sidecar that died may fail, and without an answer: %s", count, what, describeLoad(r))
		}
	}
	world.figures.add("sidecar killed", "%d of %d requests lost with it, %d let in by mistake", r.Failures(), r.Sent, r.LetIn+r.Unguarded)
	during(t, "afterwards", []*offered{o}, func(t *testing.T) {
		t.Helper()
		err := until(t.Context(), func(context.Context) error {
			if now := o.report(t); now.Pods[victim] < r.Pods[victim]+100 {
				return fmt.Errorf("pod %s has answered %d requests since it is back, expected 100", victim, now.Pods[victim]-r.Pods[victim])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Log(describeLoad(o.stop(t)))
}

// killSidecar runs a program in the pod, as `kubectl debug` does, which sends SIGKILL to
// the sidecar.
func killSidecar(t *testing.T, namespace, name string) {
	t.Helper()
	pods := world.kube.CoreV1().Pods(namespace)
	pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "kill", Image: "cluster.local/workload:1", Args: []string{"kill", "/tokenward-sidecar"},
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		},
	})
	if _, err := pods.UpdateEphemeralContainers(t.Context(), name, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	err = until(t.Context(), func(ctx context.Context) error {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.EphemeralContainerStatuses {
			switch ended := c.State.Terminated; {
			case ended == nil:
			case ended.ExitCode != 0:
				t.Fatalf("the program that kills the sidecar of pod %s ended with %d: %s", name, ended.ExitCode, ended.Message)
			default:
				return nil
			}
		}
		return fmt.Errorf("the program that kills the sidecar of pod %s has not ended", name)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func restartsOf(pod *corev1.Pod, container string) int32 {
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.Name == container {
			return c.RestartCount
		}
	}
	return -1
}
