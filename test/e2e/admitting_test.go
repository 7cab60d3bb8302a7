// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
)

// noneBare watches the pods of a namespace until the test ends: none that asks for a
// policy may exist without the sidecar, not for a moment.
func noneBare(t *testing.T, namespace string) {
	t.Helper()
	var (
		mu   sync.Mutex
		seen = map[string]string{} // what is wrong, by name of the pod
	)
	watch := cache.NewListWatchFromClient(world.kube.CoreV1().RESTClient(), "pods", namespace, fields.Everything())
	informer := cache.NewSharedInformer(watch, &corev1.Pod{}, 0)
	look := func(object any) {
		pod, ok := object.(*corev1.Pod)
		if !ok || pod.Annotations["tokenward.io/policy"] == "" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if problem := bare(pod); problem != "" || seen[pod.Name] == "" {
			seen[pod.Name] = problem
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, object any) { look(object) },
	}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		if len(seen) == 0 {
			t.Error("no pod with the annotation was seen, so nothing was tested")
		}
		for pod, problem := range seen {
			if problem != "" {
				t.Errorf("pod %s %s, and asks for a policy", pod, problem)
			}
		}
		world.figures.add("pods with the annotation, "+t.Name(), "%d started, none without the sidecar: %t", len(seen), !t.Failed())
	})
}

// admitting asks for pods of a policy all the time, as dry runs, and returns a function
// that ends it and says how many were admitted. None may be refused or lack the sidecar.
func admitting(t *testing.T, namespace string) func() int {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		admitted := 0
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				ended <- admitted
				return
			case <-ticker.C:
			}
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "dry-", Annotations: map[string]string{"tokenward.io/policy": "shop"}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "app", Image: "cluster.local/workload:1", Args: []string{"serve"}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				}}},
			}
			// The request in flight ends as all others do.
			made, err := world.kube.CoreV1().Pods(namespace).Create(context.WithoutCancel(ctx), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			switch {
			case err != nil:
				t.Errorf("a pod of the policy was refused at %s: %v", time.Now().UTC().Format(time.RFC3339Nano), err)
			case bare(made) != "":
				t.Errorf("a pod of the policy %s at %s", bare(made), time.Now().UTC().Format(time.RFC3339Nano))
			default:
				admitted++
			}
		}
	}()
	return func() int {
		stop()
		return <-ended
	}
}

// whileAdmitting makes a disturbance in which every pod of the policy must be admitted,
// before, during and for some time after it.
func whileAdmitting(t *testing.T, namespace string, disturb func()) {
	t.Helper()
	finish := admitting(t, namespace)
	disturb()
	after := time.After(10 * time.Second) // the certificate of before is in use for a moment
	select {
	case <-after:
	case <-t.Context().Done():
	}
	admitted := finish()
	if admitted == 0 {
		t.Error("no pod was admitted")
	}
	world.figures.add("pods admitted meanwhile, "+t.Name(), "%d, all with the sidecar: %t", admitted, !t.Failed())
}
