// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// TestStartUp measures what the sidecar costs a pod that starts. In turns, so that what
// else the machine does falls on both kinds of pods alike.
func TestStartUp(t *testing.T) {
	const rounds = 20
	namespace := newTenant(t)
	createPod(t, namespace, application("warm", annotated())) // both nodes have the images, or one has
	readyPods(t, namespace, "warm")

	var plain, injected, sidecar, apps []time.Duration
	for i := range rounds {
		bareName, name := fmt.Sprintf("plain-%d", i), fmt.Sprintf("injected-%d", i)
		plain = append(plain, startPod(t, namespace, application(bareName, nil), func() {}).ready)

		service := serviceOf(name)
		service.Spec.PublishNotReadyAddresses = true
		createService(t, namespace, service)
		wait := watchFirst(t, shopURL(namespace, name)+"/orders", 1)
		// A pod that is ready may be gone before its node leads a request to it.
		took := startPod(t, namespace, application(name, annotated()), func() { checkedFromTheFirst(t, name, wait) })
		injected, sidecar = append(injected, took.ready), append(sidecar, took.sidecar)
		apps = append(apps, took.application)
	}
	world.figures.add("start-up: pod without the sidecar", "ready after %s", spread(plain))
	world.figures.add("start-up: pod with the sidecar", "ready after %s, the first request of each was checked", spread(injected))
	world.figures.add("start-up: sidecar container", "from running to ready in %s", spread(sidecar))
	world.figures.add("start-up: application's container", "runs %s after the sidecar's", spread(apps))
}

// startTimes are measured at the API server, which the kubelet tells of each change.
type startTimes struct {
	// ready is from the creation of the pod; sidecar and application are from when the
	// sidecar's container runs, until it is ready and until the application's runs.
	ready, sidecar, application time.Duration
}

// startPod creates a pod, follows it until it is ready, and deletes it after use.
func startPod(t *testing.T, namespace string, pod *corev1.Pod, use func()) startTimes {
	t.Helper()
	pods := world.kube.CoreV1().Pods(namespace)
	changes, err := pods.Watch(t.Context(), metav1.ListOptions{LabelSelector: "app=" + pod.Name})
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Stop()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()

	created := time.Now()
	createPod(t, namespace, pod)
	var running, ready, application time.Time
	for {
		select {
		case <-timeout.C:
			t.Fatalf("pod %s is not ready after %s", pod.Name, patience)
		case change, open := <-changes.ResultChan():
			if !open || change.Type == watch.Error {
				t.Fatalf("the watch of pod %s has ended: %v", pod.Name, change.Object)
			}
			now, is := time.Now(), change.Object.(*corev1.Pod)
			for _, c := range is.Status.InitContainerStatuses {
				if running.IsZero() && c.State.Running != nil {
					running = now
				}
				if ready.IsZero() && c.Ready {
					ready = now
				}
			}
			for _, c := range is.Status.ContainerStatuses {
				if application.IsZero() && c.State.Running != nil {
					application = now
				}
			}
			if !isReady(is) {
				continue
			}
			use()
			if err := pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
				t.Fatal(err)
			}
			return startTimes{ready: now.Sub(created), sidecar: ready.Sub(running), application: application.Sub(running)}
		}
	}
}
