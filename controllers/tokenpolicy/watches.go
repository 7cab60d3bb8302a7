// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

// policyChanged lets a policy's updates pass, but not our own report of its pods: it
// would be counted again at once, and in a rollout reported again, and so on.
func policyChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return !equality.Semantic.DeepEqual(withoutCounts(e.ObjectOld), withoutCounts(e.ObjectNew))
	}}
}

func withoutCounts(object client.Object) *api.TokenPolicy {
	policy, ok := object.(*api.TokenPolicy)
	if !ok {
		return nil
	}
	policy = policy.DeepCopy()
	policy.ResourceVersion, policy.ManagedFields, policy.Status.Pods = "", nil, nil
	return policy
}

// policiesOfRecord: a public record changed, so the key sets of the policies change.
func (r *reconciler) policiesOfRecord(ctx context.Context, record client.Object) []ctrl.Request {
	key, ok := owned.OwnerOf(record)
	if !ok || record.GetNamespace() != r.options.Namespace || record.GetLabels()[api.ComponentLabel] != owned.SigningKey {
		return nil
	}
	return r.policiesThatName(ctx, key)
}

// policiesOfKey: a SigningKey came, went, or changed what its policies say about it.
func (r *reconciler) policiesOfKey(ctx context.Context, key client.Object) []ctrl.Request {
	return r.policiesThatName(ctx, client.ObjectKeyFromObject(key))
}

func (r *reconciler) policiesThatName(ctx context.Context, key types.NamespacedName) []ctrl.Request {
	return r.policies(ctx, func(policy *api.TokenPolicy) bool { return policy.Spec.SigningKeyRef.Name == key.Name }, client.InNamespace(key.Namespace))
}

// allPolicies: what changed is in the settings of every policy.
func (r *reconciler) allPolicies(ctx context.Context, _ client.Object) []ctrl.Request {
	return r.policies(ctx, func(*api.TokenPolicy) bool { return true })
}

// policies lists from the cache, without copying, as it only reads.
func (r *reconciler) policies(ctx context.Context, wanted func(*api.TokenPolicy) bool, options ...client.ListOption) []ctrl.Request {
	list := &api.TokenPolicyList{}
	if err := r.client.List(ctx, list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "list the TokenPolicies that a change concerns")
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		if wanted(&list.Items[i]) {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// readinessChanged lets a SigningKey's updates pass only when its policies would
// say something else about it. New keys come through the public record, which may be
// seen before the namesake that took the place of another SigningKey.
func readinessChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok1 := e.ObjectOld.(*api.SigningKey)
		after, ok2 := e.ObjectNew.(*api.SigningKey)
		return ok1 && ok2 && (before.UID != after.UID ||
			before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() || readiness(before) != readiness(after))
	}}
}

func readiness(key *api.SigningKey) string {
	if ready := meta.FindStatusCondition(key.Status.Conditions, api.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

func named(namespace, name string) predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool {
		return object.GetNamespace() == namespace && object.GetName() == name
	})
}

// countChanged lets a pod's updates pass only when they change a count, or which
// Services select the pod.
func countChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld, e.ObjectNew
		if (before.GetDeletionTimestamp() == nil) != (after.GetDeletionTimestamp() == nil) {
			return true
		}
		return before.GetAnnotations()[api.PolicyAnnotation] != after.GetAnnotations()[api.PolicyAnnotation] ||
			before.GetAnnotations()[api.StatusAnnotation] != after.GetAnnotations()[api.StatusAnnotation] ||
			!maps.Equal(before.GetLabels(), after.GetLabels())
	}}
}

// countLater queues a pod's policy after a delay. The queue keeps one entry per
// policy, so all pods that change within the delay cost one reconciliation.
func countLater(delay time.Duration) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[ctrl.Request]
	add := func(q queue, pod client.Object) {
		if policy := pod.GetAnnotations()[api.PolicyAnnotation]; policy != "" {
			q.AddAfter(ctrl.Request{NamespacedName: types.NamespacedName{Namespace: pod.GetNamespace(), Name: policy}}, delay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { add(q, e.Object) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			add(q, e.ObjectOld) // the policy annotation can change
			add(q, e.ObjectNew)
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { add(q, e.Object) },
	}
}

// routeChanged lets a Service's updates pass only when it leads elsewhere. The cache
// holds nothing of its spec but that.
func routeChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok1 := e.ObjectOld.(*corev1.Service)
		after, ok2 := e.ObjectNew.(*corev1.Service)
		return ok1 && ok2 && !equality.Semantic.DeepEqual(before.Spec, after.Spec)
	}}
}

// lookLater queues the policies of a Service's namespace after a delay, with the
// changes of their pods.
func (r *reconciler) lookLater(delay time.Duration) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[ctrl.Request]
	add := func(ctx context.Context, q queue, service client.Object) {
		all := func(*api.TokenPolicy) bool { return true }
		for _, request := range r.policies(ctx, all, client.InNamespace(service.GetNamespace())) {
			q.AddAfter(request, delay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { add(ctx, q, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) { add(ctx, q, e.ObjectNew) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { add(ctx, q, e.Object) },
	}
}
