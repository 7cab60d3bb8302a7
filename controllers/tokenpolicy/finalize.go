// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

func (r *reconciler) ensureFinalizer(ctx context.Context, s *scope) error {
	return owned.AddFinalizer(ctx, r.client, s.policy)
}

// finalize deletes the policy's sessions, which no owner reference can reach in the
// operator's namespace, and lets the policy go. The settings are left to the garbage
// collector. Pods that still run under the policy keep what they have mounted.
func (r *reconciler) finalize(ctx context.Context, policy *api.TokenPolicy) error {
	if !controllerutil.ContainsFinalizer(policy, api.Finalizer) {
		return nil
	}
	err := r.client.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace(r.options.Namespace), client.MatchingLabels{
		api.ComponentLabel: owned.Sessions, owned.PolicyUIDLabel: string(policy.UID),
	})
	if err != nil {
		return fmt.Errorf("delete the sessions of TokenPolicy %q: %w", policy.Name, err)
	}
	return owned.RemoveFinalizer(ctx, r.client, policy)
}
