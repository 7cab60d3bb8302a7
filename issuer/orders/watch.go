// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"context"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// SetupWithManager registers the controller, on every replica. A store that does not
// answer holds a worker for as long as [sweepTimeout], so there are several.
func (c *Controller) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("orders").
		Watches(&api.TokenPolicy{}, c.watch()).
		WithOptions(controller.Options{NeedLeaderElection: new(false), MaxConcurrentReconciles: 16}).
		Complete(c)
}

type queue = workqueue.TypedRateLimitingInterface[ctrl.Request]

// watch takes note of every version of a policy, and has those looked at whose orders
// have changed. What the status says is looked at when something is due.
func (c *Controller) watch() handler.EventHandler {
	look := func(q queue, policy client.Object) {
		q.Add(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(policy)})
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) {
			c.memory.saw(e.Object.(*api.TokenPolicy))
			look(q, e.Object)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			before, after := e.ObjectOld.(*api.TokenPolicy), e.ObjectNew.(*api.TokenPolicy)
			c.memory.saw(after)
			if before.UID != after.UID || !sameOrders(before, after) {
				look(q, after)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ queue) {
			c.memory.forget(client.ObjectKeyFromObject(e.Object))
		},
	}
}

func sameOrders(a, b *api.TokenPolicy) bool {
	for _, kind := range kinds {
		before, had := a.Annotations[kind.annotation]
		after, has := b.Annotations[kind.annotation]
		if had != has || before != after {
			return false
		}
	}
	return true
}
