// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
)

func enforced(spec *api.TokenPolicySpec) { spec.NetworkPolicy = api.NetworkPolicyEnforce }

func (w *world) networkPolicy() (*networkingv1.NetworkPolicy, error) {
	has := &networkingv1.NetworkPolicy{}
	return has, cluster.Admin.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: "tokenward-shop"}, has)
}

// onlyTheSidecar is the whole of what the NetworkPolicy has to say.
func onlyTheSidecar() networkingv1.NetworkPolicySpec {
	tcp := corev1.ProtocolTCP
	return networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"tokenward.io/injected": "true", "tokenward.io/injected-policy": "shop", "tokenward.io/injected-capture": "Port"}},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{
			{Protocol: &tcp, Port: new(intstr.FromInt32(18080))}, {Protocol: &tcp, Port: new(intstr.FromInt32(18081))},
		}}},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
	}
}

func (w *world) closed() {
	w.Helper()
	controllertest.Eventually(w.TB, "the NetworkPolicy admits the sidecar's ports only", func(context.Context) error {
		has, err := w.networkPolicy()
		if err == nil && !equality.Semantic.DeepEqual(has.Spec, onlyTheSidecar()) {
			err = fmt.Errorf("it is %s", cmp.Diff(onlyTheSidecar(), has.Spec))
		}
		return err
	})
}

func (w *world) open() {
	w.Helper()
	controllertest.Eventually(w.TB, "the NetworkPolicy is gone", func(context.Context) error {
		if _, err := w.networkPolicy(); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there (%w)", err)
		}
		return nil
	})
}

func TestANetworkPolicyIsThereAsLongAsItIsAskedFor(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy := w.policy("shop", "shop")
	w.published(policy)
	w.open()
	if meta.FindStatusCondition(policy.Status.Conditions, api.ConditionNetworkPolicyApplied) != nil {
		t.Error("a condition about a NetworkPolicy that nobody asked for")
	}
	w.change(policy, func() { enforced(&policy.Spec) })
	if applied := w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonApplied); applied.Status != metav1.ConditionTrue {
		t.Errorf("%+v", applied)
	}
	w.closed()
	w.event(policy, api.ReasonApplied, corev1.EventTypeNormal)
	has, err := w.networkPolicy()
	if err != nil || !metav1.IsControlledBy(has, policy) {
		t.Errorf("the garbage collector would not take it with the policy: %+v (%v)", has, err)
	}
	w.change(policy, func() { policy.Spec.NetworkPolicy = api.NetworkPolicyNone })
	w.open()
	controllertest.Eventually(t, "the condition is gone", func(ctx context.Context) error {
		err := cluster.Admin.Get(ctx, client.ObjectKeyFromObject(policy), policy)
		if has := meta.FindStatusCondition(policy.Status.Conditions, api.ConditionNetworkPolicyApplied); err == nil && has != nil {
			err = fmt.Errorf("it is %+v", has)
		}
		return err
	})
}

// The pods run under the last good settings, and their ports are as open.
func TestANetworkPolicyDoesNotWaitForTheSettings(t *testing.T) {
	w := newWorld(t)
	policy := w.policy("shop", "missing", enforced)
	w.condition(policy, api.ConditionReady, api.ReasonSigningKeyNotFound)
	w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonApplied)
	w.closed()
}

func TestAnEditOfTheNetworkPolicyIsRepaired(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy := w.policy("shop", "shop", enforced)
	w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonApplied)
	edits := map[string]func(*networkingv1.NetworkPolicy){
		"another port": func(n *networkingv1.NetworkPolicy) { n.Spec.Ingress[0].Ports[0].Port = new(intstr.FromInt32(8080)) },
		"everything let in": func(n *networkingv1.NetworkPolicy) {
			n.Spec.Ingress = append(n.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{})
		},
		"other pods selected": func(n *networkingv1.NetworkPolicy) { n.Spec.PodSelector.MatchLabels = map[string]string{"app": "none"} },
		"ingress left alone": func(n *networkingv1.NetworkPolicy) {
			n.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		},
		"the label removed too": func(n *networkingv1.NetworkPolicy) { n.Labels, n.Spec.Ingress = nil, nil },
	}
	for what, edit := range edits {
		t.Run(what, func(t *testing.T) {
			has, err := w.networkPolicy()
			if err != nil {
				t.Fatal(err)
			}
			edit(has)
			if err := cluster.Admin.Update(t.Context(), has); err != nil {
				t.Fatal(err)
			}
			w.closed()
		})
	}
	t.Run("deleted", func(t *testing.T) {
		has, err := w.networkPolicy()
		if err != nil {
			t.Fatal(err)
		}
		if err := cluster.Admin.Delete(t.Context(), has); err != nil {
			t.Fatal(err)
		}
		w.closed()
	})
	t.Run("the label removed while it is turned off", func(t *testing.T) {
		w.stop()
		has, err := w.networkPolicy()
		if err != nil {
			t.Fatal(err)
		}
		has.Labels = nil
		if err := cluster.Admin.Update(t.Context(), has); err != nil {
			t.Fatal(err)
		}
		w.change(policy, func() { policy.Spec.NetworkPolicy = api.NetworkPolicyNone })
		w.start()
		w.open()
	})
}

func TestSomebodyElsesNetworkPolicyIsLeftAlone(t *testing.T) {
	other := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop", UID: types.UID("0815"), Controller: new(true)}
	tests := map[string]metav1.ObjectMeta{
		"without any mark":      {},
		"with our label alone":  {Labels: networkPolicyLabels()},
		"of another controller": {Labels: networkPolicyLabels(), OwnerReferences: []metav1.OwnerReference{other}},
	}
	for name, meta := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			meta.Namespace, meta.Name = w.namespace, "tokenward-shop"
			theirs := &networkingv1.NetworkPolicy{ObjectMeta: meta}
			if err := cluster.Admin.Create(t.Context(), theirs); err != nil {
				t.Fatal(err)
			}
			version := theirs.ResourceVersion
			w.key("shop")
			policy := w.policy("shop", "shop", enforced)
			conflict := w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonNetworkPolicyConflict)
			if conflict.Status != metav1.ConditionFalse || !strings.Contains(conflict.Message, `"tokenward-shop"`) {
				t.Errorf("%+v", conflict)
			}
			w.condition(policy, api.ConditionReady, api.ReasonNetworkPolicyConflict)
			w.event(policy, api.ReasonNetworkPolicyConflict, corev1.EventTypeWarning)
			w.published(policy) // the settings are none the worse

			w.change(policy, func() { policy.Spec.NetworkPolicy = api.NetworkPolicyNone })
			w.condition(policy, api.ConditionReady, api.ReasonPending)
			has, err := w.networkPolicy()
			if err != nil || has.ResourceVersion != version {
				t.Errorf("it was touched: %+v (%v)", has, err)
			}

			r := &reconciler{client: cluster.Admin, live: cluster.Admin}
			s := &scope{policy: policy.DeepCopy()}
			enforced(&s.policy.Spec)
			if err := r.applyNetworkPolicy(t.Context(), s); err != nil || s.recheck() != conflictInterval {
				t.Errorf("again in %s (%v)", s.recheck(), err)
			}
			if err := cluster.Admin.Delete(t.Context(), theirs); err != nil {
				t.Fatal(err)
			}
			w.change(policy, func() { enforced(&policy.Spec) })
			w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonApplied)
			w.closed()
		})
	}
}

// A pod of a release before the label is not selected: its port is open, and that is told.
func TestPodsThatAreNotSelectedAreTold(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy := w.policy("shop", "shop", enforced)
	w.injectedPod("new", "shop", "shop")
	w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonApplied)
	old := w.pod("old", "shop", template)
	remark := w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonPodsNotSelected)
	if remark.Status != metav1.ConditionTrue || !strings.Contains(remark.Message, "rollout restart") {
		t.Errorf("%+v", remark)
	}
	w.event(policy, api.ReasonPodsNotSelected, corev1.EventTypeWarning)
	if err := cluster.Admin.Delete(t.Context(), old, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonApplied)
}

// A lagging manager must neither take away nor put back what it has not seen.
func TestAStaleNetworkPolicyIsNotWritten(t *testing.T) {
	w := newWorld(t)
	w.key("shop")
	policy := w.policy("shop", "shop", enforced)
	w.condition(policy, api.ConditionNetworkPolicyApplied, api.ReasonApplied)
	stale, err := w.networkPolicy()
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	newer := stale.DeepCopy()
	metav1.SetMetaDataAnnotation(&newer.ObjectMeta, "example.com/note", "newer")
	if err := cluster.Admin.Update(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	r := &reconciler{client: cluster.Admin}
	if err := r.deleteNetworkPolicy(t.Context(), stale.DeepCopy()); !apierrors.IsConflict(err) {
		t.Errorf("the deletion ended with %v", err)
	}
	if err := r.closePorts(t.Context(), policy, stale); !apierrors.IsConflict(err) {
		t.Errorf("the write ended with %v", err)
	}
	w.closed()
}

// TestPodsUnderRedirectAreNotCutOff: a NetworkPolicy sees the application's port, where
// their Services lead, before the rules in the pod do.
func TestPodsUnderRedirectAreNotCutOff(t *testing.T) {
	labels := func(capture api.Capture) map[string]string {
		return map[string]string{api.InjectedLabel: "true", api.InjectedPolicyLabel: "shop", api.InjectedCaptureLabel: string(capture)}
	}
	if selects(selectedLabels("shop"), labels(api.CaptureRedirect)) {
		t.Error("a pod under Redirect is selected")
	}
	if !selects(selectedLabels("shop"), labels(api.CapturePort)) {
		t.Error("a pod under Port is not selected")
	}
	redirected := podFacts{labels: labels(api.CaptureRedirect)}
	redirected.capture = api.CaptureRedirect
	if !allSelected([]podFacts{redirected}, "shop") {
		t.Error("a pod that need not be selected is missed")
	}
}
