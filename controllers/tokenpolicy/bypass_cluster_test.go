// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// injectedPod is a pod of the app as the webhook makes it of a port 8080 called http.
func (w *world) injectedPod(name, policy, app string) *corev1.Pod {
	w.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: name,
			Labels: map[string]string{"app": app, api.InjectedLabel: "true", api.InjectedPolicyLabel: policy, api.InjectedCaptureLabel: string(api.CapturePort)},
			Annotations: map[string]string{
				api.PolicyAnnotation: policy,
				api.StatusAnnotation: fmt.Sprintf(`{"template":%q,"capture":"Port","port":8080,"portName":"http"}`, template),
			},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	if err := cluster.Admin.Create(w.Context(), pod); err != nil {
		w.Fatal(err)
	}
	return pod
}

func (w *world) service(name, app string, target intstr.IntOrString) *corev1.Service {
	w.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: target}}},
	}
	if err := cluster.Admin.Create(w.Context(), service); err != nil {
		w.Fatal(err)
	}
	return service
}

func TestAServicePastTheSidecarIsTold(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy, other := w.policy("shop", "shop"), w.policy("other", "shop")
	w.condition(policy, api.ConditionBypassable, api.ReasonNoPods)
	right := w.service("right", "shop", intstr.FromString("http"))
	wrong := w.service("wrong", "shop", intstr.FromInt32(8080))
	pod := w.injectedPod("a", "shop", "shop")
	w.injectedPod("b", "other", "else")
	w.condition(other, api.ConditionBypassable, api.ReasonNoneFound)
	w.issuerReports(policy, metav1.ConditionTrue, api.ReasonUsersReady, "ok")

	found := w.condition(policy, api.ConditionBypassable, api.ReasonServicePastSidecar)
	for _, part := range []string{`"wrong"`, "port 80 ", "8080", "targetPort: http"} {
		if !strings.Contains(found.Message, part) {
			t.Errorf("the message does not name %s: %s", part, found.Message)
		}
	}
	if found.Status != metav1.ConditionTrue || strings.Contains(found.Message, right.Name) {
		t.Errorf("%+v", found)
	}
	w.event(policy, api.ConditionBypassable, corev1.EventTypeWarning)
	w.condition(policy, api.ConditionReady, api.ReasonReady)

	w.change(wrong, func() { wrong.Spec.Ports[0].TargetPort = intstr.FromString("http") })
	if mended := w.condition(policy, api.ConditionBypassable, api.ReasonNoneFound); mended.Status != metav1.ConditionFalse {
		t.Errorf("%+v", mended)
	}
	w.change(right, func() { right.Spec.Ports[0].TargetPort = intstr.FromInt32(9090) })
	w.condition(policy, api.ConditionBypassable, api.ReasonOtherPortServed)
	if err := cluster.Admin.Delete(t.Context(), right); err != nil {
		t.Fatal(err)
	}
	w.condition(policy, api.ConditionBypassable, api.ReasonNoneFound)

	// Pods change, too: here one becomes a pod that another Service selects.
	w.service("wrong-again", "moved", intstr.FromInt32(8080))
	w.change(pod, func() { pod.Labels["app"] = "moved" })
	w.condition(policy, api.ConditionBypassable, api.ReasonServicePastSidecar)
	if err := cluster.Admin.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	w.condition(policy, api.ConditionBypassable, api.ReasonNoPods)
	w.condition(other, api.ConditionBypassable, api.ReasonNoneFound)
}

// A restart finds the same, writes nothing and tells nobody again.
func TestLookingAgainWritesNothing(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy := w.policy("shop", "shop", enforced)
	for _, name := range []string{"c", "a", "b"} {
		w.service(name, "shop", intstr.FromInt32(8080))
		w.injectedPod(name, "shop", "shop")
	}
	w.condition(policy, api.ConditionBypassable, api.ReasonServicePastSidecar)
	w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonApplied)
	w.counted(policy, 3, 0)
	w.requests.Quiet(t, 3*countDelay)
	w.stop()
	w.start()
	w.requests.Quiet(t, 3*countDelay)
	if writes := w.requests.Writes(); len(writes) != 0 {
		t.Errorf("a restart writes, although nothing changed: %v", writes)
	}
}
