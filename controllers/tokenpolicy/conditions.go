// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// conditions are those that the manager writes: SettingsPublished, and Ready, which
// sums it and the issuer's UsersReady up. It is a pure function of what the status
// says already, of why the spec was refused (nil when it was published), and of now.
func conditions(policy *api.TokenPolicy, refused *refusal, now time.Time) []metav1.Condition {
	published := metav1.Condition{
		Type: api.ConditionSettingsPublished, Status: metav1.ConditionTrue, Reason: api.ReasonPublished,
		Message: "the settings and the key set are in ConfigMap tokenward-" + policy.Name + ".",
	}
	if refused != nil {
		published.Status, published.Reason, published.Message = metav1.ConditionFalse, refused.reason, refused.message
	}
	ready := sum(published, meta.FindStatusCondition(policy.Status.Conditions, api.ConditionUsersReady), policy.Generation)
	return []metav1.Condition{
		settled(published, policy, now),
		settled(ready, policy, now),
	}
}

// sum is the Ready condition: the first part that does not work, or else the first
// that has something to say.
func sum(published metav1.Condition, users *metav1.Condition, generation int64) metav1.Condition {
	ready := metav1.Condition{Type: api.ConditionReady}
	switch {
	case published.Status != metav1.ConditionTrue:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, published.Reason, published.Message
	case users == nil || users.ObservedGeneration != generation:
		ready.Status, ready.Reason = metav1.ConditionUnknown, api.ReasonPending
		ready.Message = "the issuer has not reported on the users of this generation yet."
	case users.Status != metav1.ConditionTrue:
		ready.Status, ready.Reason, ready.Message = users.Status, users.Reason, users.Message
	case users.Reason != api.ReasonUsersReady:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionTrue, users.Reason, users.Message
	default:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionTrue, api.ReasonReady, "every part of this policy works."
	}
	return ready
}

// settled gives the condition its generation, and the time since when it has its status.
func settled(condition metav1.Condition, policy *api.TokenPolicy, now time.Time) metav1.Condition {
	condition.ObservedGeneration = policy.Generation
	condition.LastTransitionTime = metav1.NewTime(now).Rfc3339Copy()
	if before := meta.FindStatusCondition(policy.Status.Conditions, condition.Type); before != nil && before.Status == condition.Status {
		condition.LastTransitionTime = before.LastTransitionTime
	}
	return condition
}
