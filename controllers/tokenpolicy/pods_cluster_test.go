// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
)

func (w *world) pod(name, policy, template string) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: name,
			Labels:      map[string]string{api.InjectedLabel: "true"},
			Annotations: map[string]string{api.PolicyAnnotation: policy, api.StatusAnnotation: fmt.Sprintf(`{"template":%q}`, template)},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	if err := cluster.Admin.Create(w.Context(), pod); err != nil {
		w.Fatal(err)
	}
	return pod
}

func (w *world) counted(policy *api.TokenPolicy, injected, outdated int32) {
	w.Helper()
	want := api.PodCounts{Injected: injected, Outdated: outdated}
	controllertest.Eventually(w.TB, fmt.Sprintf("the pods of %s are counted as %+v", policy.Name, want), func(ctx context.Context) error {
		if err := cluster.Admin.Get(ctx, client.ObjectKeyFromObject(policy), policy); err != nil {
			return err
		}
		if policy.Status.Pods == nil || *policy.Status.Pods != want {
			return fmt.Errorf("as %+v", policy.Status.Pods)
		}
		return nil
	})
}

func TestPodsAreCounted(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy, other := w.policy("shop", "shop"), w.policy("other", "shop")
	w.pod("a", "shop", template)
	old := w.pod("b", "shop", "template-of-yesterday")
	done := w.pod("c", "shop", template)
	w.pod("d", "other", template)
	w.counted(policy, 3, 1)
	w.counted(other, 1, 0)

	done.Status.Phase = corev1.PodSucceeded // a Job's pod stays around
	if err := cluster.Admin.Status().Update(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	w.counted(policy, 2, 1)
	if err := cluster.Admin.Delete(t.Context(), old, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	w.counted(policy, 1, 0)
}

// A rollout must not become a storm of status writes.
func TestARolloutCostsFewRequests(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy := w.policy("shop", "shop")
	w.published(policy)
	w.requests.Quiet(t, 3*countDelay)
	writes, reads, begin := len(w.requests.Writes()), w.requests.Reads(), time.Now()
	const pods = 300
	for i := range pods {
		w.pod(fmt.Sprintf("pod-%d", i), "shop", template)
	}
	took := time.Since(begin)
	w.counted(policy, pods, 0)
	w.requests.Quiet(t, 3*countDelay)
	writes, reads = len(w.requests.Writes())-writes, w.requests.Reads()-reads
	t.Logf("%d pods in %s: %d writes, %d reads by the manager", pods, took, writes, reads)
	if most := int(took/countDelay) + 2; writes > most {
		t.Errorf("%d status writes for %d pods in %s, at most %d are due", writes, pods, took, most)
	}
	for _, write := range w.requests.Writes() {
		if strings.Contains(write, "/pods/") {
			t.Errorf("the manager writes pods: %s", write)
		}
	}
}
