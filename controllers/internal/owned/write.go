// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package owned

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// AddFinalizer makes sure that the object stays until what it owns is gone.
func AddFinalizer(ctx context.Context, c client.Client, object client.Object) error {
	return patchFinalizer(ctx, c, object, controllerutil.AddFinalizer)
}

// RemoveFinalizer lets the object go.
func RemoveFinalizer(ctx context.Context, c client.Client, object client.Object) error {
	return client.IgnoreNotFound(patchFinalizer(ctx, c, object, controllerutil.RemoveFinalizer))
}

// patchFinalizer replaces the list of finalizers, which a merge patch cannot do
// element by element: hence with optimistic lock.
func patchFinalizer(ctx context.Context, c client.Client, object client.Object, change func(client.Object, string) bool) error {
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok || !change(object, api.Finalizer) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := c.Patch(ctx, object, patch, FieldOwner); err != nil {
		return fmt.Errorf("patch the finalizer of %s: %w", client.ObjectKeyFromObject(object), err)
	}
	return nil
}

// Conditions are the apply configurations of the conditions.
func Conditions(conditions []metav1.Condition) []*metav1apply.ConditionApplyConfiguration {
	configurations := make([]*metav1apply.ConditionApplyConfiguration, 0, len(conditions))
	for _, c := range conditions {
		configurations = append(configurations, metav1apply.Condition().
			WithType(c.Type).WithStatus(c.Status).WithReason(c.Reason).WithMessage(c.Message).
			WithObservedGeneration(c.ObservedGeneration).WithLastTransitionTime(c.LastTransitionTime))
	}
	return configurations
}

// maxNote is what events.k8s.io allows in a note, in bytes.
const maxNote = 1024

// Note shortens a condition's message to what an Event may hold.
func Note(message string) string {
	if len(message) <= maxNote {
		return message
	}
	const ellipsis = "…"
	cut := maxNote - len(ellipsis)
	for cut > 0 && message[cut]&0xC0 == 0x80 { // not inside a UTF-8 sequence
		cut--
	}
	return message[:cut] + ellipsis
}

// retryDelay is how long the cache is given to see what another writer did.
const retryDelay = 200 * time.Millisecond

// Settle turns the outcome of a reconciliation into what controller-runtime is told.
// Two outcomes are no faults: another writer was faster, so the object is read
// again; and the namespace is going away, so nothing is left to do.
func Settle(result ctrl.Result, err error) (ctrl.Result, error) {
	switch {
	case err == nil:
		return result, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return ctrl.Result{}, nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return ctrl.Result{RequeueAfter: retryDelay}, nil
	default:
		return ctrl.Result{}, err
	}
}
