// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/changed"
	"github.com/tokenward/tokenward/internal/session/configmap"
)

// Indexes of the manager's cache.
const (
	bySigningKey = "spec.signingKeyRef.name"
	byUID        = "metadata.uid"
)

// SetupWithManager registers the controller and its indexes. It runs on every
// replica: each one serves.
func (c *Controller) SetupWithManager(mgr ctrl.Manager) error {
	indexer := mgr.GetFieldIndexer()
	// At set-up there is no context yet; the indexer uses it for nothing but starting informers.
	ctx := context.Background()
	err := indexer.IndexField(ctx, &api.TokenPolicy{}, bySigningKey, func(o client.Object) []string {
		return []string{o.(*api.TokenPolicy).Spec.SigningKeyRef.Name}
	})
	if err != nil {
		return fmt.Errorf("index TokenPolicies: %w", err)
	}
	err = indexer.IndexField(ctx, &api.SigningKey{}, byUID, func(o client.Object) []string {
		return []string{string(o.GetUID())}
	})
	if err != nil {
		return fmt.Errorf("index SigningKeys: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("policies").
		For(&api.TokenPolicy{}, builder.WithPredicates(changed.Spec())).
		Watches(&api.SigningKey{}, handler.EnqueueRequestsFromMapFunc(c.policiesOfKey), builder.WithPredicates(changed.Spec())).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(c.policiesOfSecret)).
		WithOptions(controller.Options{NeedLeaderElection: new(false)}).
		Complete(c)
}

// policiesOfKey are the policies that name a SigningKey.
func (c *Controller) policiesOfKey(ctx context.Context, key client.Object) []ctrl.Request {
	return c.policiesThat(ctx, client.InNamespace(key.GetNamespace()), client.MatchingFields{bySigningKey: key.GetName()})
}

func (c *Controller) policiesThat(ctx context.Context, options ...client.ListOption) []ctrl.Request {
	var list api.TokenPolicyList
	if err := c.cached.List(ctx, &list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "list the TokenPolicies that a change concerns")
		return nil
	}
	requests := make([]ctrl.Request, 0, len(list.Items))
	for i := range list.Items {
		requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

// policiesOfSecret are the policies whose keys are in a Secret, or all when their
// session stores may have waited for it.
func (c *Controller) policiesOfSecret(ctx context.Context, changed client.Object) []ctrl.Request {
	if changed.GetNamespace() != c.namespace {
		return nil
	}
	if changed.GetName() == configmap.SecretName {
		return c.policiesThat(ctx)
	}
	uid, ok := strings.CutPrefix(changed.GetName(), keyringPrefix)
	if !ok {
		return nil
	}
	var keys api.SigningKeyList
	if err := c.cached.List(ctx, &keys, client.MatchingFields{byUID: uid}); err != nil {
		log.FromContext(ctx).Error(err, "list the SigningKey of a key ring", "secret", changed.GetName())
		return nil
	}
	var requests []ctrl.Request
	for i := range keys.Items {
		requests = append(requests, c.policiesOfKey(ctx, &keys.Items[i])...)
	}
	return requests
}

// Ready says why the registry cannot be relied upon yet: after a start each policy
// must have been looked at once.
func (c *Controller) Ready() healthz.Checker {
	var loaded atomic.Bool
	return func(r *http.Request) error {
		if loaded.Load() {
			return nil
		}
		var list api.TokenPolicyList
		if err := c.cached.List(r.Context(), &list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list TokenPolicies: %w", err)
		}
		missing := 0
		for i := range list.Items {
			policy := &list.Items[i]
			// One that is being deleted is not loaded, and somebody's finalizer may keep it.
			if policy.DeletionTimestamp.IsZero() && !c.Known(client.ObjectKeyFromObject(policy)) {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d TokenPolicies are not loaded yet", missing, len(list.Items))
		}
		loaded.Store(true)
		return nil
	}
}
