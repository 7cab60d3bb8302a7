// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// stopManager scales the manager to nothing until start is called, or the test ends.
func stopManager(t *testing.T) (start func()) {
	t.Helper()
	scale := func(ctx context.Context, replicas int) error {
		_, err := world.kube.AppsV1().Deployments(operatorNamespace).Patch(ctx, "tokenward-manager", types.StrategicMergePatchType,
			fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{})
		return err
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := scale(ctx, 2); err != nil {
			t.Fatal(err)
		}
		if err := rolledOut(ctx, operatorNamespace, "tokenward-manager"); err != nil {
			t.Fatal(err)
		}
	})
	if err := scale(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	err := until(t.Context(), func(ctx context.Context) error {
		slices, err := world.kube.DiscoveryV1().EndpointSlices(operatorNamespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=tokenward-webhook"})
		if err != nil {
			return err
		}
		for _, slice := range slices.Items {
			if len(slice.Endpoints) > 0 {
				return fmt.Errorf("the webhook still has %d endpoints", len(slice.Endpoints))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := scale(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
	}
}

// TestManagerDown is design section 2: running pods go on, annotated new pods wait, and
// others do not notice.
func TestManagerDown(t *testing.T) {
	namespace := newTenant(t)
	running := startApplication(t, namespace, "running", 2)
	token := logIn(t, running)
	start := stopManager(t)
	stopped := time.Now()

	createDeployment(t, namespace, application("waiting", annotated()), 2)
	createDeployment(t, namespace, application("plain", nil), 2)

	if err := rolledOut(t.Context(), namespace, "plain"); err != nil {
		t.Fatalf("pods without the annotation wait for the manager: %v", err)
	}
	world.figures.add("manager down: 2 pods without the annotation", "ready %s after their Deployment was created", time.Since(stopped).Round(time.Second))
	err := until(t.Context(), func(ctx context.Context) error {
		sets, err := world.kube.AppsV1().ReplicaSets(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, set := range sets.Items {
			for _, c := range set.Status.Conditions {
				if set.Labels["app"] == "plain" {
					t.Fatalf("the ReplicaSet of pods without the annotation says: %s", c.Message)
				}
				if set.Labels["app"] == "waiting" && c.Reason == "FailedCreate" && strings.Contains(c.Message, "inject.tokenward.io") {
					return nil
				}
			}
		}
		return fmt.Errorf("no ReplicaSet says FailedCreate with the name of the webhook")
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		requireServed(t, running, token)
	}
	requireServed(t, running, logIn(t, running)) // the issuer needs no manager
	if pods, err := podsOf(t.Context(), namespace, "waiting"); err != nil || len(pods) != 0 {
		t.Fatalf("%d annotated pods were made while no manager ran, want none: %v", len(pods), err)
	}

	start()
	if err := rolledOut(t.Context(), operatorNamespace, "tokenward-manager"); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	if err := rolledOut(t.Context(), namespace, "waiting"); err != nil {
		t.Fatalf("annotated pods do not come although the manager is back: %v", err)
	}
	world.figures.add("manager back after "+back.Sub(stopped).Round(time.Second).String(), "annotated pods ready %s later, nobody helped", time.Since(back).Round(time.Second))
	for _, pod := range readyPods(t, namespace, "waiting") {
		requireInjected(t, &pod)
	}
}

// TestTwoHundredPods creates pods while the webhook goes away and comes back: those with
// the annotation until they are admitted, as controllers do, the others once.
func TestTwoHundredPods(t *testing.T) {
	const each = 200
	namespace := newTenant(t)
	pods := world.kube.CoreV1().Pods(namespace)
	createPod(t, namespace, gated(application("warm", annotated()))) // the namespace is ready now

	var admitted, refused atomic.Int64
	var created sync.WaitGroup
	names := make(chan int)
	for range 4 {
		created.Go(func() {
			for i := range names {
				err := until(t.Context(), func(ctx context.Context) error {
					_, err := pods.Create(ctx, gated(application(fmt.Sprintf("annotated-%d", i), annotated())), metav1.CreateOptions{})
					if err != nil {
						refused.Add(1)
						if !strings.Contains(err.Error(), "inject.tokenward.io") {
							t.Errorf("annotated pod %d is refused for another reason than the webhook: %v", i, err)
						}
					}
					return err
				})
				if err != nil {
					t.Errorf("annotated pod %d: %v", i, err)
					return
				}
				admitted.Add(1)
			}
		})
	}
	waitFor := func(what string, holds func() bool) {
		t.Helper()
		err := until(t.Context(), func(context.Context) error {
			if !holds() {
				return fmt.Errorf("expected %s; %d pods were admitted, %d tries refused", what, admitted.Load(), refused.Load())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	plain := func(prefix string) []time.Duration {
		var times []time.Duration
		for i := range each / 2 {
			began := time.Now()
			if _, err := pods.Create(t.Context(), gated(application(fmt.Sprintf("%s-%d", prefix, i), nil)), metav1.CreateOptions{}); err != nil {
				t.Errorf("a pod without the annotation was refused: %v", err)
			}
			times = append(times, time.Since(began))
		}
		return times
	}
	excluded := webhookMetric(t, "apiserver_admission_match_condition_exclusions_total")
	up := plain("plain-up")

	for i := range each / 4 {
		names <- i
	}
	start := stopManager(t)
	created.Go(func() {
		defer close(names)
		for i := each / 4; i < each; i++ {
			names <- i
		}
	})
	waitFor("tries to be refused", func() bool { return refused.Load() >= 20 })
	whileDown := admitted.Load()
	down := plain("plain-down")
	if now := admitted.Load(); now != whileDown {
		t.Errorf("%d annotated pods were admitted while no manager ran", now-whileDown)
	}
	start()
	waitFor("all annotated pods to be admitted", func() bool { return admitted.Load() == each })
	created.Wait()

	if asked := webhookMetric(t, "apiserver_admission_match_condition_exclusions_total") - excluded; asked < each {
		t.Errorf("the API server has left out the webhook for %g pods, want the %d without the annotation at least", asked, each)
	}
	counts := map[string]int{}
	list, err := pods.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		pod := &list.Items[i]
		switch problem := bare(pod); {
		case strings.HasPrefix(pod.Name, "plain"):
			counts["plain"]++
		case problem != "":
			t.Errorf("annotated pod %s %s", pod.Name, problem)
		case pod.Name != "warm":
			counts["injected"]++
		}
	}
	if counts["injected"] != each || counts["plain"] != each {
		t.Errorf("there are %v pods, want %d injected and as many plain ones", counts, each)
	}
	world.figures.add("200 annotated pods, webhook down and back", "%d injected, 0 bare, %d tries refused meanwhile", counts["injected"], refused.Load())
	world.figures.add("pod without the annotation, webhook up", "created in %s", spread(up))
	world.figures.add("pod without the annotation, webhook down", "created in %s, all at the first try", spread(down))
}

// webhookMetric sums what the API server counts about our webhook.
func webhookMetric(t *testing.T, name string) (sum float64) {
	t.Helper()
	body, err := world.kube.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, `name="inject.tokenward.io"`) {
			var value float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value); err != nil {
				t.Fatalf("read %q: %v", line, err)
			}
			sum += value
		}
	}
	return sum
}
