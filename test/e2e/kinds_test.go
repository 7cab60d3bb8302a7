// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// endless are the kinds of workload whose pods run until somebody ends them; the pods of
// the others have done their work after three requests.
func endless() []string { return []string{"deployment", "statefulset", "daemonset"} }
func ending() []string  { return []string{"job", "by-hand", "by-schedule"} }

// TestKinds has the same application as every kind of workload. The very first answer
// of each pod is to a request that was checked, and what has an end comes to it.
func TestKinds(t *testing.T) {
	t.Parallel()
	namespace := newTenant(t)
	kinds := append(endless(), ending()...)

	// The Services are there before the pods, and somebody calls from then on.
	services := map[string]any{"Namespace": namespace, "Kinds": kinds}
	applyFile(t, "kinds-services.yaml", services)
	watched := map[string]func() ([]attempt, error){}
	for _, kind := range kinds {
		watched[kind] = watchFirst(t, shopURL(namespace, kind)+"/orders", 20)
	}
	applyFile(t, "kinds.yaml", services)
	instantiate(t, namespace, "by-hand")
	for _, kind := range kinds {
		checkedFromTheFirst(t, kind, watched[kind])
	}
	token := ""
	for _, kind := range endless() {
		t.Run(kind, func(t *testing.T) {
			pods := readyPods(t, namespace, kind)
			for _, pod := range pods {
				requireInjected(t, &pod)
				requireNoRestart(t, &pod)
			}
			if kind == "daemonset" && len(pods) != nodes(t) {
				t.Errorf("%d pods on %d nodes", len(pods), nodes(t))
			}
			if token == "" {
				token = logIn(t, shopURL(namespace, kind))
			}
			requireServed(t, shopURL(namespace, kind), token)
		})
	}
	t.Run("a pod of the StatefulSet under its own name", func(t *testing.T) {
		pod := "http://statefulset-0.headless." + namespace + ".svc.cluster.local:18080"
		if got := world.caller.call(t, http.MethodGet, pod+"/orders", "", ""); got.reason() != "token_missing" {
			t.Errorf("no token: status %d and reason %q, want 403 and token_missing", got.status, got.reason())
		}
		requireServed(t, pod, token)
	})
	for _, kind := range ending() {
		t.Run(kind, func(t *testing.T) {
			for range 3 {
				requireServed(t, shopURL(namespace, kind), token)
			}
			requireCompleted(t, namespace, kind)
		})
	}
}

// requireServed holds that a request with a token reaches the application, as alice.
func requireServed(t *testing.T, url, token string) {
	t.Helper()
	got := world.caller.call(t, http.MethodGet, url+"/orders", token, "", "X-User-Id", "root")
	if got.status != http.StatusOK {
		t.Fatalf("%s: a valid token was answered with status %d, reason %q, body %s", url, got.status, got.reason(), got.body)
	}
	if users := got.seen(t).Header.Values("X-User-Id"); len(users) != 1 || users[0] != "alice" {
		t.Errorf("%s: the application saw the users %q, want alice alone", url, users)
	}
}

// requireInjected holds that a pod has the sidecar, and as what webhook and kubelet know it.
func requireInjected(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if problem := bare(pod); problem != "" {
		t.Errorf("pod %s %s", pod.Name, problem)
	}
}

// bare says what an injected pod lacks, in words that follow its name.
func bare(pod *corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == "tokenward" && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			if pod.Labels["tokenward.io/injected"] != "true" {
				return "lacks the label tokenward.io/injected"
			}
			return ""
		}
	}
	return "has no sidecar"
}

// readyPods waits until there are pods of an application and all are ready.
func readyPods(t *testing.T, namespace, app string) []corev1.Pod {
	t.Helper()
	var pods []corev1.Pod
	err := until(t.Context(), func(ctx context.Context) error {
		list, err := world.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return err
		}
		pods = list.Items
		if len(pods) == 0 {
			return fmt.Errorf("there is no pod of %s", app)
		}
		for i := range pods {
			if !isReady(&pods[i]) {
				return fmt.Errorf("pod %s is not ready", pods[i].Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func nodes(t *testing.T) int {
	t.Helper()
	list, err := world.kube.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

// instantiate does what `kubectl create job --from=cronjob/NAME` does.
func instantiate(t *testing.T, namespace, name string) {
	t.Helper()
	cron, err := world.kube.BatchV1().CronJobs(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: name + "-now", Labels: cron.Spec.JobTemplate.Labels,
			Annotations:     map[string]string{"cronjob.kubernetes.io/instantiate": "manual"},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cron, batchv1.SchemeGroupVersion.WithKind("CronJob"))},
		},
		Spec: cron.Spec.JobTemplate.Spec,
	}
	if _, err := world.kube.BatchV1().Jobs(namespace).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// requireCompleted waits until the first job of a name is complete, sidecar and all.
func requireCompleted(t *testing.T, namespace, name string) {
	t.Helper()
	var done *batchv1.Job
	failed := errors.New("a job failed")
	err := until(t.Context(), func(ctx context.Context) error {
		jobs, err := world.kube.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range jobs.Items {
			job := &jobs.Items[i]
			if job.Spec.Template.Labels["app"] != name {
				continue
			}
			if job.Status.Failed > 0 {
				t.Fatalf("job %s: %v: %+v", job.Name, failed, job.Status)
			}
			for _, c := range job.Status.Conditions {
				if c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue {
					done = job
					return nil
				}
			}
		}
		return fmt.Errorf("no job of %s is complete", name)
	})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := world.kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "job-name=" + done.Name})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("job %s has %d pods, want 1: %v", done.Name, len(pods.Items), err)
	}
	pod := &pods.Items[0]
	requireInjected(t, pod)
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.State.Terminated == nil || c.State.Terminated.ExitCode != 0 || c.RestartCount != 0 {
			t.Errorf("job %s is complete, and its container %s has ended with %+v after %d restarts, want exit code 0 and none", done.Name, c.Name, c.State.Terminated, c.RestartCount)
		}
	}
}
