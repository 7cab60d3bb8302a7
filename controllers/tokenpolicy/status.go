// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	apply "github.com/tokenward/tokenward/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

// writeStatus applies the manager's part of the status, if it differs from what is
// there. The issuer's conditions are not in the configuration, so they stay the issuer's.
func (r *reconciler) writeStatus(ctx context.Context, s *scope) error {
	policy := s.policy
	wanted := conditions(s, r.options.Clock.Now())
	if saidAlready(policy, wanted, s.pods) {
		return nil
	}
	status := apply.TokenPolicyStatus().
		WithObservedGeneration(policy.Generation).
		WithPods(apply.PodCounts().WithInjected(s.pods.Injected).WithOutdated(s.pods.Outdated)).
		WithConditions(owned.Conditions(wanted)...)
	// With the UID, a namesake that was created meanwhile does not get this status.
	configuration := apply.TokenPolicy(policy.Name, policy.Namespace).WithUID(policy.UID).WithStatus(status)
	if err := r.client.Status().Apply(ctx, configuration, owned.FieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("apply the status of TokenPolicy %q: %w", policy.Name, err)
	}
	for _, condition := range wanted {
		r.announce(policy, condition)
	}
	return nil
}

// saidAlready says whether the status says all this.
func saidAlready(policy *api.TokenPolicy, wanted []metav1.Condition, pods api.PodCounts) bool {
	status := policy.Status
	if status.ObservedGeneration != policy.Generation || status.Pods == nil || *status.Pods != pods {
		return false
	}
	for _, condition := range wanted {
		if has := meta.FindStatusCondition(status.Conditions, condition.Type); has == nil || !equality.Semantic.DeepEqual(*has, condition) {
			return false
		}
	}
	return true
}

// announce makes an Event of SettingsPublished and NetworkPolicyApplied when their
// reason changed, and of Bypassable when it is true and what it says changed.
func (r *reconciler) announce(policy *api.TokenPolicy, condition metav1.Condition) {
	before := metav1.Condition{}
	if has := meta.FindStatusCondition(policy.Status.Conditions, condition.Type); has != nil {
		before = *has
	}
	kind, reason, action := corev1.EventTypeNormal, condition.Reason, ""
	switch condition.Type {
	case api.ConditionSettingsPublished:
		action = "PublishSettings"
	case api.ConditionNetworkPolicyApplied:
		action = "ApplyNetworkPolicy"
	case api.ConditionBypassable:
		if condition.Status != metav1.ConditionTrue || condition.Message == before.Message {
			return
		}
		r.recorder.Eventf(policy, nil, corev1.EventTypeWarning, api.ConditionBypassable, "LookForWays", "%s", owned.Note(condition.Message))
		return
	default:
		return // Ready only repeats
	}
	if before.Reason == reason {
		return
	}
	if condition.Status != metav1.ConditionTrue || reason == api.ReasonPodsNotSelected {
		kind = corev1.EventTypeWarning
	}
	r.recorder.Eventf(policy, nil, kind, reason, action, "%s", owned.Note(condition.Message))
}
