// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// annotated is what a team writes to have the sidecar.
func annotated(more ...string) map[string]string {
	all := map[string]string{"tokenward.io/policy": "shop"}
	for i := 0; i+1 < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

// application is a pod that the restricted Pod Security Standard admits. Its label app
// is its name.
func application(name string, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}, Annotations: maps.Clone(annotations)},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(1)),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				// As a number: the kubelet does not look names up.
				RunAsUser: new(int64(65532)),
			},
			Containers: []corev1.Container{{
				Name: "app", Image: "cluster.local/workload:1", Args: []string{"serve"},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				ReadinessProbe: &corev1.Probe{
					ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/orders", Port: intstr.FromString("http")}},
					PeriodSeconds: 1,
				},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// gated keeps a pod from being scheduled: what counts is whether it was admitted.
func gated(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "e2e.tokenward.io/admission-only"}}
	return pod
}

// requiring sets requests and limits of the application, as in "50m", "64Mi".
func requiring(pod *corev1.Pod, cpu, memory string) *corev1.Pod {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
	return pod
}

// deploymentOf runs so many of a pod.
func deploymentOf(pod *corev1.Pod, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec,
			},
		},
	}
}

// serviceOf leads to the pods of an application by the name of their port.
func serviceOf(app string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": app},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
}

func createPod(t *testing.T, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	var made *corev1.Pod
	err := until(t.Context(), func(ctx context.Context) (err error) { // the ServiceAccount of a new namespace comes a moment later
		made, err = world.kube.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		t.Fatalf("create pod %s: %v", pod.Name, err)
	}
	return made
}

func createDeployment(t *testing.T, namespace string, pod *corev1.Pod, replicas int32) {
	t.Helper()
	if _, err := world.kube.AppsV1().Deployments(namespace).Create(t.Context(), deploymentOf(pod, replicas), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func createService(t *testing.T, namespace string, service *corev1.Service) {
	t.Helper()
	if _, err := world.kube.CoreV1().Services(namespace).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// startApplication runs so many injected pods with a Service, and waits until it leads
// to all of them.
func startApplication(t *testing.T, namespace, name string, replicas int32) (url string) {
	t.Helper()
	createService(t, namespace, serviceOf(name))
	pod := application(name, annotated())
	// One on each node, as far as there are as many.
	pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: pod.Labels},
	}}
	createDeployment(t, namespace, pod, replicas)
	if err := rolledOut(t.Context(), namespace, name); err != nil {
		t.Fatal(err)
	}
	leadsToAll(t, shopURL(namespace, name), int(replicas))
	return shopURL(namespace, name)
}

// podsOf lists the pods of an application.
func podsOf(ctx context.Context, namespace, app string) ([]corev1.Pod, error) {
	list, err := world.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w", app, err)
	}
	return list.Items, nil
}
