// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// conditions are those that the manager writes: SettingsPublished; NetworkPolicyApplied
// where one is asked for; Bypassable; and Ready, which sums the first two and the issuer's
// UsersReady and StoreReady up. Bypassable is a remark and no part of Ready. It is a pure
// function of what the status says already, of what the phases have found, and of now.
func conditions(s *scope, now time.Time) []metav1.Condition {
	policy, refused := s.policy, s.refused
	published := metav1.Condition{
		Type: api.ConditionSettingsPublished, Status: metav1.ConditionTrue, Reason: api.ReasonPublished,
		Message: "the settings and the key set are in ConfigMap tokenward-" + policy.Name + ".",
	}
	if refused != nil {
		published.Status, published.Reason, published.Message = metav1.ConditionFalse, refused.reason, refused.message
	}
	parts := []part{
		{published, api.ReasonPublished},
		{reported(policy, api.ConditionUsersReady, "users"), api.ReasonUsersReady},
	}
	if !reportedByAnOlderIssuer(policy) {
		parts = append(parts, part{reported(policy, api.ConditionStoreReady, "session store"), api.ReasonStoreReady})
	}
	others := []metav1.Condition{bypassable(s)}
	if closed, asked := networkPolicyApplied(policy, s.networkPolicy, s.running); asked {
		parts, others = append(parts, part{closed, api.ReasonApplied}), append(others, closed)
	}
	all := append([]metav1.Condition{published, sum(parts)}, others...)
	for i := range all {
		all[i] = settled(all[i], policy, now)
	}
	return all
}

// part is a condition that Ready sums up, and its reason when it has nothing to say.
type part struct {
	metav1.Condition
	silent string
}

// reported is a condition of the issuer's, if it is about this generation.
func reported(policy *api.TokenPolicy, kind, what string) metav1.Condition {
	if has := meta.FindStatusCondition(policy.Status.Conditions, kind); has != nil && has.ObservedGeneration == policy.Generation {
		return *has
	}
	return metav1.Condition{
		Type: kind, Status: metav1.ConditionUnknown, Reason: api.ReasonPending,
		Message: "the issuer has not reported on the " + what + " of this generation yet.",
	}
}

// reportedByAnOlderIssuer: while an upgrade is under way the manager may be newer than
// the issuer, which then says nothing about stores and knows but one kind of them, the
// one in ConfigMaps. A policy with that one is as good as before the upgrade, and must
// not look otherwise. An issuer of this release reports on the store before it reports
// on the users.
func reportedByAnOlderIssuer(policy *api.TokenPolicy) bool {
	return policy.Spec.Store.ConfigMap != nil &&
		reported(policy, api.ConditionUsersReady, "").Reason != api.ReasonPending &&
		meta.FindStatusCondition(policy.Status.Conditions, api.ConditionStoreReady) == nil
}

// sum is the Ready condition: the first part that does not work; else the first that is
// not known; else the first that has something to say.
func sum(parts []part) metav1.Condition {
	for _, status := range []metav1.ConditionStatus{metav1.ConditionFalse, metav1.ConditionUnknown, metav1.ConditionTrue} {
		for _, p := range parts {
			if p.Status == status && p.Reason != p.silent {
				return metav1.Condition{Type: api.ConditionReady, Status: status, Reason: p.Reason, Message: p.Message}
			}
		}
	}
	return metav1.Condition{
		Type: api.ConditionReady, Status: metav1.ConditionTrue, Reason: api.ReasonReady, Message: "every part of this policy works.",
	}
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
