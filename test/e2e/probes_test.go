// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// probedPod is one pod of the matrix: a type of probe, how it names the port, and a
// capture, "" for a pod that is not injected.
type probedPod struct {
	Namespace, Name, Type, Port, Capture string
	Probes                               map[string]declaredProbe
}

// declaredProbe asks for one state of the application; see probed.go of the workload.
type declaredProbe struct {
	State            string
	Period, Failures int
}

func probedPods(namespace string) []probedPod {
	var all []probedPod
	for _, capture := range []string{"", "Port", "Redirect"} {
		for _, of := range []struct{ name, probe, port string }{
			{"http-name", "httpGet", "http"},
			{"http-number", "httpGet", "8080"},
			{"tcp-name", "tcpSocket", "http"},
			{"tcp-number", "tcpSocket", "8080"},
			{"grpc-number", "grpc", "8080"},
			{"exec", "exec", ""},
		} {
			prefix := "bare-"
			if capture != "" {
				prefix = strings.ToLower(capture) + "-"
			}
			all = append(all, probedPod{Namespace: namespace, Name: prefix + of.name, Type: of.probe, Port: of.port, Capture: capture, Probes: map[string]declaredProbe{
				// It fails for as long as the test needs, and is still one that ends.
				"startup":   {State: "started", Period: 1, Failures: 300},
				"readiness": {State: "ready", Period: 1, Failures: 1},
				// Not before the readiness probe has been seen to fail.
				"liveness": {State: "live", Period: 2, Failures: 3},
			}})
		}
	}
	return all
}

// TestProbes holds that every type of probe says what it did before injection: the
// application starts when it says so, leaves its Services when it is not ready, and is
// started again, alone, when it does not live. What they ask for is a secret of the
// policy: nothing but a token opens it to others.
func TestProbes(t *testing.T) {
	t.Parallel()
	namespace := newTenant(t)
	pods := probedPods(namespace)
	for _, pod := range pods {
		applyFile(t, "probed.yaml", pod)
	}
	for _, pod := range pods {
		t.Run(pod.Name, func(t *testing.T) {
			t.Parallel()
			pod.test(t)
		})
	}
}

func (p probedPod) test(t *testing.T) {
	t.Helper()
	p.until(t, "the application runs and has not started, because its startup probe fails", func(pod *corev1.Pod, app corev1.ContainerStatus) bool {
		return app.State.Running != nil && app.Started != nil && !*app.Started && !isReady(pod)
	})
	p.start(t)
	p.until(t, "the pod is ready, because all probes pass", func(pod *corev1.Pod, _ corev1.ContainerStatus) bool { return isReady(pod) })
	p.untilServed(t, true)
	p.testServices(t)
	restarts := p.restarts(t)

	if p.Type == "tcpSocket" {
		p.set(t, "tcp", false) // both probes fail, and readiness first
	} else {
		p.set(t, "ready", false)
	}
	p.until(t, "the pod is not ready, because its readiness probe fails", func(pod *corev1.Pod, _ corev1.ContainerStatus) bool { return !isReady(pod) })
	if p.Type != "tcpSocket" {
		p.untilServed(t, false)
		if now := p.restarts(t); fmt.Sprint(now) != fmt.Sprint(restarts) {
			t.Errorf("containers were started again when the pod was not ready: %v, before %v", now, restarts)
		}
		p.set(t, "ready", true)
		p.until(t, "the pod is ready again", func(pod *corev1.Pod, _ corev1.ContainerStatus) bool { return isReady(pod) })
		p.set(t, "live", false)
	}
	p.until(t, "the application was started again, because its liveness probe failed, and waits for its startup probe", func(_ *corev1.Pod, app corev1.ContainerStatus) bool {
		return app.RestartCount == 1 && app.State.Running != nil && app.Started != nil && !*app.Started
	})
	p.start(t)
	p.until(t, "the pod is ready after the restart", func(pod *corev1.Pod, _ corev1.ContainerStatus) bool { return isReady(pod) })
	p.untilServed(t, true)
	restarts["app"]++
	if now := p.restarts(t); fmt.Sprint(now) != fmt.Sprint(restarts) {
		t.Errorf("containers were started again: %v, want %v", now, restarts)
	}
}

// start has the application start, as far as its startup probe can see.
func (p probedPod) start(t *testing.T) {
	t.Helper()
	if p.Type == "tcpSocket" {
		p.set(t, "tcp", true)
		return
	}
	p.set(t, "started", true)
}

// set changes a state of the application, on a port of its own that no probe asks.
func (p probedPod) set(t *testing.T, state string, on bool) {
	t.Helper()
	err := until(t.Context(), func(ctx context.Context) error { // a container that runs may not listen yet
		_, err := world.kube.CoreV1().RESTClient().Put().
			Namespace(p.Namespace).Resource("pods").Name(p.Name+":9090").SubResource("proxy").Suffix(state).
			Param("on", fmt.Sprint(on)).DoRaw(ctx)
		return err
	})
	if err != nil {
		t.Fatalf("set %s of pod %s: %v", state, p.Name, err)
	}
}

func (p probedPod) until(t *testing.T, what string, holds func(*corev1.Pod, corev1.ContainerStatus) bool) {
	t.Helper()
	err := until(t.Context(), func(ctx context.Context) error {
		pod, err := world.kube.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.ContainerStatuses {
			if c.Name == "app" && holds(pod, c) {
				return nil
			}
		}
		return fmt.Errorf("pod %s: expected that %s; it has %+v", p.Name, what, pod.Status.ContainerStatuses)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// untilServed waits until the endpoints of both Services are, or are not, to be used.
func (p probedPod) untilServed(t *testing.T, served bool) {
	t.Helper()
	for _, service := range []string{p.Name + "-name", p.Name + "-number"} {
		err := until(t.Context(), func(ctx context.Context) error {
			slices, err := world.kube.DiscoveryV1().EndpointSlices(p.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
			if err != nil {
				return err
			}
			found := false
			for _, slice := range slices.Items {
				if slice.AddressType != discoveryv1.AddressTypeIPv4 {
					continue
				}
				for _, e := range slice.Endpoints {
					found = true
					if ready := e.Conditions.Ready != nil && *e.Conditions.Ready; ready != served {
						return fmt.Errorf("Service %s: its endpoint is ready: %t, expected %t", service, ready, served)
					}
				}
			}
			if !found {
				return fmt.Errorf("Service %s has no endpoint", service)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// testServices asks both Services for what the probes ask for, without a token.
func (p probedPod) testServices(t *testing.T) {
	t.Helper()
	for service, reachesApplication := range map[string]bool{
		p.Name + "-name": p.Capture == "",
		// Under Port capture a number leads past the sidecar, as the condition Bypassable says.
		p.Name + "-number": p.Capture != "Redirect",
	} {
		url := shopURL(p.Namespace, service) + "/ready"
		got, err := answer{}, error(nil)
		err = until(t.Context(), func(ctx context.Context) error { // the nodes learn of endpoints a moment later
			got, err = world.caller.try(ctx, http.MethodGet, url, "", "")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case reachesApplication && got.status != http.StatusOK:
			t.Errorf("%s: status %d and reason %q, want 200 of the application", service, got.status, got.reason())
		case !reachesApplication && (got.status != http.StatusForbidden || got.reason() != "token_missing"):
			t.Errorf("%s: status %d and reason %q, want 403 and token_missing", service, got.status, got.reason())
		}
	}
}

// restarts are how often each container was started again.
func (p probedPod) restarts(t *testing.T) map[string]int32 {
	t.Helper()
	pod, err := world.kube.CoreV1().Pods(p.Namespace).Get(t.Context(), p.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int32{}
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		counts[c.Name] = c.RestartCount
	}
	return counts
}
