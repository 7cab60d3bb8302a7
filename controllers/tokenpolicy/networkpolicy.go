// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingv1apply "k8s.io/client-go/applyconfigurations/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/injection"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

// applyNetworkPolicy makes what spec.networkPolicy says, whatever else is wrong with the
// spec: pods run under the last good settings, and their other ports are as open.
func (r *reconciler) applyNetworkPolicy(ctx context.Context, s *scope) error {
	enforce := s.policy.Spec.NetworkPolicy == api.NetworkPolicyEnforce
	has, err := r.readNetworkPolicy(ctx, s.policy, enforce)
	if err != nil {
		return err
	}
	mine := has != nil && ours(has, s.policy, networkPolicyLabels())
	switch {
	case !enforce && mine:
		return r.deleteNetworkPolicy(ctx, has)
	case !enforce:
		return nil
	case has != nil && !mine:
		s.networkPolicy = &refusal{api.ReasonNetworkPolicyConflict, fmt.Sprintf("NetworkPolicy %q of namespace %q was not made by Tokenward for this policy, and it is in the place of the one that spec.networkPolicy: Enforce asks for: delete or rename it, or write spec.networkPolicy: None.",
			has.Name, has.Namespace)}
		return nil
	case has != nil && closes(has, s.policy):
		return nil
	}
	return r.closePorts(ctx, s.policy, has)
}

// readNetworkPolicy finds the NetworkPolicy with our name; nil when there is none.
func (r *reconciler) readNetworkPolicy(ctx context.Context, policy *api.TokenPolicy, enforce bool) (*networkingv1.NetworkPolicy, error) {
	name := client.ObjectKey{Namespace: policy.Namespace, Name: owned.NetworkPolicyName(policy.Name)}
	has := &networkingv1.NetworkPolicy{}
	err := r.client.Get(ctx, name, has)
	// The cache holds only what has our label. Somebody else's is found past it, and one
	// of ours that lost the label; without need the API server is not asked.
	asked := enforce || meta.FindStatusCondition(policy.Status.Conditions, api.ConditionNetworkPolicyApplied) != nil
	if apierrors.IsNotFound(err) && asked {
		err = r.live.Get(ctx, name, has)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // none is an answer, not an error
	}
	if err != nil {
		return nil, fmt.Errorf("get NetworkPolicy %q: %w", name.Name, err)
	}
	return has, nil
}

func (r *reconciler) deleteNetworkPolicy(ctx context.Context, has *networkingv1.NetworkPolicy) error {
	// Only the very one that was read: not what somebody has put in its place since.
	err := r.client.Delete(ctx, has, client.Preconditions{UID: &has.UID, ResourceVersion: &has.ResourceVersion})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete NetworkPolicy %q: %w", has.Name, err)
	}
	return nil
}

func networkPolicyLabels() map[string]string {
	return map[string]string{api.ComponentLabel: owned.NetworkPolicy}
}

// selectedLabels are on every pod that the webhook has injected for the policy under
// Port capture. Others close the application's port by themselves, and need it admitted.
func selectedLabels(policy string) map[string]string {
	return map[string]string{api.InjectedLabel: "true", api.InjectedPolicyLabel: policy, api.InjectedCaptureLabel: string(api.CapturePort)}
}

// closes says whether the NetworkPolicy is as it should be. What others have added
// beside our fields, egress for example, is theirs and has no effect on ours.
func closes(has *networkingv1.NetworkPolicy, policy *api.TokenPolicy) bool {
	tcp := corev1.ProtocolTCP
	wanted := networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: selectedLabels(policy.Name)},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{
			{Protocol: &tcp, Port: new(intstr.FromInt32(injection.ListenPort))},
			{Protocol: &tcp, Port: new(intstr.FromInt32(injection.AdminPort))},
		}}},
		Egress:      has.Spec.Egress,
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
	}
	return equality.Semantic.DeepEqual(has.Spec, wanted) &&
		owned.Carries(has, networkPolicyLabels()) && metav1.IsControlledBy(has, policy)
}

// closePorts applies the NetworkPolicy, in place of has, which is ours or nil.
func (r *reconciler) closePorts(ctx context.Context, policy *api.TokenPolicy, has *networkingv1.NetworkPolicy) error {
	name := owned.NetworkPolicyName(policy.Name)
	port := func(number int32) *networkingv1apply.NetworkPolicyPortApplyConfiguration {
		return networkingv1apply.NetworkPolicyPort().WithProtocol(corev1.ProtocolTCP).WithPort(intstr.FromInt32(number))
	}
	configuration := networkingv1apply.NetworkPolicy(name, policy.Namespace).
		WithLabels(networkPolicyLabels()).
		WithOwnerReferences(metav1apply.OwnerReference().
			WithAPIVersion(api.GroupVersion.String()).WithKind("TokenPolicy").
			WithName(policy.Name).WithUID(policy.UID).WithController(true)).
		WithSpec(networkingv1apply.NetworkPolicySpec().
			WithPodSelector(metav1apply.LabelSelector().WithMatchLabels(selectedLabels(policy.Name))).
			WithPolicyTypes(networkingv1.PolicyTypeIngress).
			WithIngress(networkingv1apply.NetworkPolicyIngressRule().WithPorts(port(injection.ListenPort), port(injection.AdminPort))))
	options := []client.ApplyOption{owned.FieldOwner}
	if has != nil {
		// As with the settings: ours is taken back, but only as it was read, and a new one
		// is applied without force, which cannot change anybody's fields.
		configuration.WithResourceVersion(has.ResourceVersion)
		options = append(options, client.ForceOwnership)
	}
	if err := r.client.Apply(ctx, configuration, options...); err != nil {
		return fmt.Errorf("apply NetworkPolicy %q: %w", name, err)
	}
	return nil
}

// networkPolicyApplied is the condition, or false when no NetworkPolicy is asked for.
func networkPolicyApplied(policy *api.TokenPolicy, refused *refusal, pods []podFacts) (metav1.Condition, bool) {
	if policy.Spec.NetworkPolicy != api.NetworkPolicyEnforce {
		return metav1.Condition{}, false
	}
	name := owned.NetworkPolicyName(policy.Name)
	condition := metav1.Condition{
		Type: api.ConditionNetworkPolicyApplied, Status: metav1.ConditionTrue, Reason: api.ReasonApplied,
		Message: "NetworkPolicy " + name + " admits connections to the sidecar's ports only, where the network enforces NetworkPolicies.",
	}
	switch {
	case refused != nil:
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, refused.reason, refused.message
	case !allSelected(pods, policy.Name):
		condition.Reason = api.ReasonPodsNotSelected
		condition.Message = "some pods lack the labels by which NetworkPolicy " + name + " selects, and their other ports stay open: they were injected by an older release, or somebody has removed the labels. Replace them, for example with kubectl rollout restart."
	}
	return condition, true
}

func allSelected(pods []podFacts, policy string) bool {
	for _, pod := range pods {
		if pod.capture != api.CaptureRedirect && !selects(selectedLabels(policy), pod.labels) {
			return false
		}
	}
	return true
}
