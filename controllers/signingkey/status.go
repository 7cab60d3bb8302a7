// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	apply "github.com/tokenward/tokenward/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/keyring"
)

// maxReported is how many keys the status may list; see MaxItems in the API.
const maxReported = 64

// writeStatus applies the status, if it differs from what is there.
func (r *reconciler) writeStatus(ctx context.Context, s *scope) error {
	wanted := report(s)
	if equality.Semantic.DeepEqual(s.key.Status, wanted) {
		return nil
	}
	status := apply.SigningKeyStatus().
		WithObservedGeneration(wanted.ObservedGeneration).
		WithConditions(owned.Conditions(wanted.Conditions)...).
		WithKeys(keyConfigurations(wanted.Keys)...)
	if wanted.ActiveKeyID != "" {
		status.WithActiveKeyID(wanted.ActiveKeyID)
	}
	// With the UID, a namesake that was created meanwhile does not get this status.
	configuration := apply.SigningKey(s.key.Name, s.key.Namespace).WithUID(s.key.UID).WithStatus(status)
	if err := r.client.Status().Apply(ctx, configuration, owned.FieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("apply the status of SigningKey %q: %w", s.key.Name, err)
	}
	return nil
}

// report is the status that the scope calls for. It is a pure function.
func report(s *scope) api.SigningKeyStatus {
	status := api.SigningKeyStatus{
		ObservedGeneration: s.key.Generation,
		Conditions:         []metav1.Condition{ready(s)},
		Keys:               keys(s.ring),
	}
	if active, ok := s.ring.Active(); ok {
		status.ActiveKeyID = active.Public.ID
	}
	return status
}

// ready is the one condition. What is wrong with an import comes first, although
// the keys that were imported before go on working.
func ready(s *scope) metav1.Condition {
	condition := metav1.Condition{
		Type: api.ConditionReady, ObservedGeneration: s.key.Generation, LastTransitionTime: *at(s.now),
	}
	active, signs := s.ring.Active()
	switch {
	case s.refused != nil && signs:
		condition.Status, condition.Reason = metav1.ConditionFalse, s.refused.reason
		condition.Message = s.refused.message + "\nUntil then key " + active.Public.ID + " goes on signing."
	case s.refused != nil:
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, s.refused.reason, s.refused.message
	case s.secret.GetAnnotations()[recoveredAnnotation] == active.Public.ID:
		condition.Status, condition.Reason = metav1.ConditionTrue, api.ReasonKeyRecovered
		condition.Message = "the Secret with the private key was lost: tokens signed before still verify, and the new key " + active.Public.ID + " signs."
	default:
		condition.Status, condition.Reason = metav1.ConditionTrue, api.ReasonKeyActive
		condition.Message = "key " + active.Public.ID + " signs."
	}
	if before := meta.FindStatusCondition(s.key.Status.Conditions, condition.Type); before != nil && before.Status == condition.Status {
		condition.LastTransitionTime = before.LastTransitionTime
	}
	return condition
}

// keys reports the ring, newest first, and no more than the API allows: those left
// out are the oldest, which only still verify.
func keys(ring *keyring.Ring) []api.KeyStatus {
	var reported []api.KeyStatus
	for _, key := range ring.Keys {
		status := api.KeyStatus{
			ID:          key.Public.ID,
			Algorithm:   api.SigningAlgorithm(key.Public.Algorithm),
			State:       api.KeyState(key.State),
			PublishedAt: at(key.PublishedAt),
			ActiveFrom:  at(key.ActiveFrom),
			RetiredAt:   at(key.RetiredAt),
		}
		if removeAfter, ok := key.RemoveAfter(); ok {
			status.RemoveAfter = at(removeAfter)
		}
		reported = append(reported, status)
	}
	slices.SortStableFunc(reported, func(a, b api.KeyStatus) int {
		return cmp.Or(unix(b.PublishedAt).Compare(unix(a.PublishedAt)), unix(b.ActiveFrom).Compare(unix(a.ActiveFrom)))
	})
	return reported[:min(len(reported), maxReported)]
}

// at is a time as the API stores it, in whole seconds; nil for none.
func at(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return new(metav1.NewTime(t.Truncate(time.Second).Local()))
}

func unix(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

func keyConfigurations(keys []api.KeyStatus) []*apply.KeyStatusApplyConfiguration {
	configurations := make([]*apply.KeyStatusApplyConfiguration, 0, len(keys))
	for _, key := range keys {
		configuration := apply.KeyStatus().WithID(key.ID).WithAlgorithm(key.Algorithm).WithState(key.State)
		configuration.PublishedAt, configuration.ActiveFrom = key.PublishedAt, key.ActiveFrom
		configuration.RetiredAt, configuration.RemoveAfter = key.RetiredAt, key.RemoveAfter
		configurations = append(configurations, configuration)
	}
	return configurations
}
