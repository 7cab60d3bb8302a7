// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// TestRestrictedNamespace is the strictest Pod Security Standard.
func TestRestrictedNamespace(t *testing.T) {
	t.Parallel()
	namespace := newTenant(t, "pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/enforce-version=latest")

	t.Run("an injected pod is admitted and runs", func(t *testing.T) {
		createService(t, namespace, serviceOf("shop"))
		pod := createPod(t, namespace, application("shop", annotated()))
		requireInjected(t, pod)
		readyPods(t, namespace, "shop")
		leadsToAll(t, shopURL(namespace, "shop"), 1)
		if got := world.caller.call(t, "GET", shopURL(namespace, "shop")+"/orders", "", ""); got.reason() != "token_missing" {
			t.Errorf("no token: status %d and reason %q, want 403 and token_missing", got.status, got.reason())
		}
		requireServed(t, shopURL(namespace, "shop"), logIn(t, shopURL(namespace, "shop")))
	})
	t.Run("Redirect capture is refused in one sentence that says what to do", func(t *testing.T) {
		requireRefused(t, namespace, application("redirected", annotated("tokenward.io/capture", "Redirect")),
			`annotation tokenward.io/capture="Redirect"`, "pod-security.kubernetes.io/enforce", "NET_ADMIN", `use "Port"`)
	})
}

// TestQuota is a namespace where every container has to say what it needs.
func TestQuota(t *testing.T) {
	t.Parallel()
	namespace := newTenant(t)
	createQuota(t, namespace, corev1.ResourceList{
		corev1.ResourceRequestsCPU: resource.MustParse("130m"), corev1.ResourceRequestsMemory: resource.MustParse("256Mi"),
		corev1.ResourceLimitsCPU: resource.MustParse("1"), corev1.ResourceLimitsMemory: resource.MustParse("1Gi"),
	})
	pod := func(name string, annotations ...string) *corev1.Pod {
		return requiring(application(name, annotated(annotations...)), "50m", "64Mi")
	}
	limited := []string{"tokenward.io/sidecar-cpu-limit", "100m"}

	requireRefused(t, namespace, pod("unlimited"), "must specify limits.cpu for: tokenward")

	createPod(t, namespace, pod("first", limited...))
	readyPods(t, namespace, "first")
	requireUsed(t, namespace, "60m", "96Mi", "150m", "192Mi")
	createPod(t, namespace, gated(pod("second", append(limited, "tokenward.io/capture", "Redirect")...)))
	requireUsed(t, namespace, "120m", "192Mi", "300m", "384Mi")

	// Without the sidecar it would fit.
	third := requiring(application("third", annotated(limited...)), "10m", "16Mi")
	requireRefused(t, namespace, third, "exceeded quota", "requests.cpu=20m", "used: requests.cpu=120m", "limited: requests.cpu=130m")
	third.Annotations = nil
	createPod(t, namespace, gated(third))
}

// TestQuotaOfPolicies is what docs/operations.md says under Limits.
func TestQuotaOfPolicies(t *testing.T) {
	t.Parallel()
	namespace := newTenant(t)
	const policies = "count/tokenpolicies.tokenward.io"
	createQuota(t, namespace, corev1.ResourceList{policies: resource.MustParse("1")})

	first := &api.TokenPolicy{}
	if err := world.client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "shop"}, first); err != nil {
		t.Fatal(err)
	}
	second := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "second"}, Spec: first.Spec}
	err := world.client.Create(t.Context(), second)
	if want := "exceeded quota: all, requested: " + policies + "=1, used: " + policies + "=1"; !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("a second policy: %v, want it to be refused with %q", err, want)
	}
}

// TestLimitRange is a namespace that says what containers get, and at least need.
func TestLimitRange(t *testing.T) {
	t.Parallel()
	namespace := newTenant(t)
	createQuota(t, namespace, corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("1"), corev1.ResourceLimitsMemory: resource.MustParse("1Gi")})
	limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "containers"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type:           corev1.LimitTypeContainer,
		Default:        corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
		DefaultRequest: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
		Min:            corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")},
	}}}}
	ranges := world.kube.CoreV1().LimitRanges(namespace)
	limits, err := ranges.Create(t.Context(), limits, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}

	t.Run("the sidecar has its own, and the default where it says nothing", func(t *testing.T) {
		pod := createPod(t, namespace, application("shop", annotated()))
		readyPods(t, namespace, "shop")
		requireInjected(t, pod)
		r := pod.Spec.InitContainers[0].Resources
		got := fmt.Sprintf("requests %s %s, limits %s %s", r.Requests.Cpu(), r.Requests.Memory(), r.Limits.Cpu(), r.Limits.Memory())
		if want := "requests 10m 32Mi, limits 200m 128Mi"; got != want {
			t.Errorf("the sidecar has %s, want %s", got, want)
		}
	})
	t.Run("what is less than the least is refused, and an annotation mends it", func(t *testing.T) {
		limits.Spec.Limits[0].Min[corev1.ResourceMemory] = resource.MustParse("48Mi")
		limits.Spec.Limits[0].DefaultRequest[corev1.ResourceMemory] = resource.MustParse("48Mi")
		if _, err := ranges.Update(t.Context(), limits, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		err := until(t.Context(), func(ctx context.Context) error { // the admission plugin hears of it a moment later
			_, err := world.kube.CoreV1().Pods(namespace).Create(ctx, application("small", annotated()), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err == nil {
				return fmt.Errorf("a sidecar with less memory than the LimitRange wants was admitted")
			}
			if want := "minimum memory usage per Container is 48Mi, but request is 32Mi"; !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
				t.Fatalf("refused with %v, want it to say %q", err, want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		createPod(t, namespace, gated(application("enough", annotated("tokenward.io/sidecar-memory-request", "48Mi"))))
	})
}

// requireRefused holds that a pod is not admitted, and that the answer says all of these.
func requireRefused(t *testing.T, namespace string, pod *corev1.Pod, says ...string) {
	t.Helper()
	_, err := world.kube.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Fatalf("pod %s: expected that it is refused, and it came to: %v", pod.Name, err)
	}
	for _, part := range says {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("pod %s is refused with %q, want it to say %q", pod.Name, err, part)
		}
	}
}

func createQuota(t *testing.T, namespace string, hard corev1.ResourceList) {
	t.Helper()
	quotas := world.kube.CoreV1().ResourceQuotas(namespace)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	if _, err := quotas.Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	err := until(t.Context(), func(ctx context.Context) error {
		found, err := quotas.Get(ctx, "all", metav1.GetOptions{})
		if err == nil && len(found.Status.Used) != len(hard) {
			err = fmt.Errorf("the quota is not in force yet: %v", found.Status)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// requireUsed holds that the quota counts application and sidecar.
func requireUsed(t *testing.T, namespace, requestsCPU, requestsMemory, limitsCPU, limitsMemory string) {
	t.Helper()
	quota, err := world.kube.CoreV1().ResourceQuotas(namespace).Get(t.Context(), "all", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[corev1.ResourceName]string{
		corev1.ResourceRequestsCPU: requestsCPU, corev1.ResourceRequestsMemory: requestsMemory,
		corev1.ResourceLimitsCPU: limitsCPU, corev1.ResourceLimitsMemory: limitsMemory,
	} {
		if used := quota.Status.Used[name]; used.Cmp(resource.MustParse(want)) != 0 {
			t.Errorf("the quota counts %s of %s, want %s", used.String(), name, want)
		}
	}
}
