// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

const (
	// orphanInterval is how often sessions without a policy are looked for.
	orphanInterval = time.Hour
	// orphanAge is how old they must be.
	orphanAge = 10 * time.Minute
)

// sweepOrphans deletes sessions whose policy is gone, now and then. Normally the
// finalizer has done so; it has not when somebody has taken it off by hand, or when an
// issuer that had not heard of the deletion yet has written once more. It runs where
// the controllers do, at the leader.
func (r *reconciler) sweepOrphans(ctx context.Context) error {
	ticker := time.NewTicker(orphanInterval)
	defer ticker.Stop()
	for {
		if err := r.deleteOrphans(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "sessions without a policy could not be removed; it is tried again in an hour")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// deleteOrphans reads the sessions first: a policy that exists before its sessions do
// is then among the policies, and its sessions are left alone.
func (r *reconciler) deleteOrphans(ctx context.Context) error {
	sessions := &metav1.PartialObjectMetadataList{}
	sessions.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	labels := client.MatchingLabels{api.ComponentLabel: owned.Sessions}
	if err := r.live.List(ctx, sessions, client.InNamespace(r.options.Namespace), labels); err != nil {
		return fmt.Errorf("list sessions: %w", err)
	}
	orphans := map[string]bool{}
	for i := range sessions.Items {
		object := &sessions.Items[i]
		if uid := object.Labels[owned.PolicyUIDLabel]; uid != "" && r.options.Clock.Since(object.CreationTimestamp.Time) > orphanAge {
			orphans[uid] = true
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	policies := &metav1.PartialObjectMetadataList{}
	policies.SetGroupVersionKind(api.GroupVersion.WithKind("TokenPolicyList"))
	if err := r.live.List(ctx, policies); err != nil {
		return fmt.Errorf("list TokenPolicies: %w", err)
	}
	for i := range policies.Items {
		delete(orphans, string(policies.Items[i].UID))
	}
	for uid := range orphans {
		labels[owned.PolicyUIDLabel] = uid
		if err := r.client.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace(r.options.Namespace), labels); err != nil {
			return fmt.Errorf("delete the sessions of a TokenPolicy that is gone: %w", err)
		}
		log.FromContext(ctx).Info("removed sessions whose TokenPolicy is gone", "policyUID", uid)
	}
	return nil
}
