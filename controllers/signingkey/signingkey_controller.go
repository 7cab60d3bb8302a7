// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/changed"
)

// +kubebuilder:rbac:groups=tokenward.io,resources=signingkeys,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=tokenward.io,resources=signingkeys/status,verbs=patch
// +kubebuilder:rbac:groups=tokenward.io,resources=tokenpolicies,verbs=get;list;watch
// Private keys are here and nowhere else. A tenant's Secret, for an import, is read
// only through the tenant's own Role and RoleBinding.
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;update;delete,namespace=tokenward-system
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;update;delete,namespace=tokenward-system
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Options are what the controller must be told.
type Options struct {
	// Namespace is the operator's own, where key rings are kept.
	Namespace string
	// Clock says when a key's time has come; the real one when nil.
	Clock clock.PassiveClock
}

// SetupWithManager adds the controller to the manager, whose cache must be made
// with controllers.CacheOptions for the same namespace.
func SetupWithManager(mgr ctrl.Manager, options Options) error {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	r := &reconciler{
		client:   mgr.GetClient(),
		live:     mgr.GetAPIReader(),
		recorder: mgr.GetEventRecorder("tokenward.io/signingkey"),
		options:  options,
	}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("signingkey").
		For(&api.SigningKey{}).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.keyOfStored)).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.keyOfStored)).
		Watches(&api.TokenPolicy{}, handler.EnqueueRequestsFromMapFunc(keyOfPolicy), builder.WithPredicates(changed.Spec())).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the SigningKey controller: %w", err)
	}
	return nil
}

// reconciler holds what a phase needs beside its scope.
type reconciler struct {
	client   client.Client
	live     client.Reader // the API server itself, past the cache
	recorder events.EventRecorder
	options  Options
}

// phase does one thing to the scope. What the user did wrong it notes in the scope;
// what the system did wrong it returns.
type phase func(context.Context, *scope) error

// Reconcile makes one SigningKey true, and asks to be called again when the next
// key's time comes.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	key := &api.SigningKey{}
	if err := r.client.Get(ctx, req.NamespacedName, key); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !key.DeletionTimestamp.IsZero() {
		return owned.Settle(ctrl.Result{}, r.finalize(ctx, key))
	}
	s := &scope{key: key, now: r.options.Clock.Now()}
	phases := []phase{
		r.ensureFinalizer,
		r.readRing, r.readRetention, r.readImport,
		r.advance, r.writeSecret, r.announce, r.writeRecord, fault,
		r.writeStatus,
	}
	for _, run := range phases {
		if err := run(ctx, s); err != nil {
			return owned.Settle(ctrl.Result{}, err)
		}
	}
	return ctrl.Result{RequeueAfter: s.recheck}, nil
}

// fault returns what went wrong while the keys advanced, after all that went right
// is stored.
func fault(_ context.Context, s *scope) error { return s.fault }

// keyOfStored is the SigningKey of a ring's Secret or public record.
func (r *reconciler) keyOfStored(_ context.Context, stored client.Object) []ctrl.Request {
	key, ok := owned.OwnerOf(stored)
	if !ok || stored.GetNamespace() != r.options.Namespace || stored.GetLabels()[api.ComponentLabel] != owned.SigningKey {
		return nil
	}
	return []ctrl.Request{{NamespacedName: key}}
}

// keyOfPolicy: how long a policy's tokens live decides how long a key is kept.
func keyOfPolicy(_ context.Context, object client.Object) []ctrl.Request {
	policy, ok := object.(*api.TokenPolicy)
	if !ok {
		return nil
	}
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Namespace: policy.Namespace, Name: policy.Spec.SigningKeyRef.Name}}}
}
