// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/controllers/internal/reach"
	"github.com/tokenward/tokenward/internal/outbound"
)

// +kubebuilder:rbac:groups=tokenward.io,resources=tokenpolicies,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=tokenward.io,resources=tokenpolicies/status,verbs=patch
// +kubebuilder:rbac:groups=tokenward.io,resources=signingkeys,verbs=get;list;watch
// Pods are read as metadata, to count them and to see which Services select them; and a
// few whole, by name, for their addresses, to try whether they can be reached past the
// sidecar (ADR 0023).
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch
// Services, to see whether one leads past the sidecar.
// +kubebuilder:rbac:groups="",resources=services,verbs=list;watch
// The NetworkPolicy that a policy asks for, in its namespace. "delete" is for the one
// that is no longer asked for.
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// A pod can mount a ConfigMap of its own namespace only, so the settings have to be
// written into every namespace that has a policy. Names of objects to be created
// cannot be restricted by RBAC. There is no "update" and no "delete": the manager
// applies its own fields, and the garbage collector deletes.
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;patch
// Sessions of a deleted policy.
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=deletecollection,namespace=tokenward-system
// The authorities that sidecars trust.
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch,namespace=tokenward-system
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// DefaultTrySettle is [Options.TrySettle] when not set.
const DefaultTrySettle = 15 * time.Second

// DefaultCountDelay is [Options.CountDelay] when not set.
const DefaultCountDelay = 5 * time.Second

// Options are what the controller must be told.
type Options struct {
	// Namespace is the operator's own: public records, authorities and sessions are there.
	Namespace string
	// IssuerURL is where sidecars find the issuer: https, host and port, no path.
	IssuerURL string
	// Template identifies the sidecar that would be injected now. A pod whose status
	// annotation has another value in "template" is outdated.
	Template string
	// Clock gives the times of conditions; the real one when nil.
	Clock clock.PassiveClock
	// CountDelay is how long changes of pods and Services are gathered before pods are
	// counted and ways past them looked for, so that a rollout of thousands of pods makes
	// one status write per delay and policy; [DefaultCountDelay] when zero.
	CountDelay time.Duration
	// TriesPerMinute is how many pods are tried at most, over all policies, whether their
	// applications can be reached past the sidecar; 0 for none.
	TriesPerMinute int
	// TrySettle is how long a pod must have been ready and a NetworkPolicy been there before
	// that is tried; [DefaultTrySettle] when zero.
	TrySettle time.Duration
	// Dial connects; one that refuses the addresses of machines when nil.
	Dial reach.Dial
}

// SetupWithManager adds the controller to the manager, whose cache must be made
// with controllers.CacheOptions for the same namespace.
func SetupWithManager(mgr ctrl.Manager, options Options) error {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.CountDelay == 0 {
		options.CountDelay = DefaultCountDelay
	}
	options.TrySettle = cmp.Or(options.TrySettle, DefaultTrySettle)
	if options.Dial == nil {
		options.Dial = outbound.Guard{}.DialContext
	}
	r := &reconciler{
		client:   mgr.GetClient(),
		live:     mgr.GetAPIReader(),
		recorder: mgr.GetEventRecorder("tokenward.io/tokenpolicy"),
		options:  options,
	}
	found, err := r.setUpTries(mgr)
	if err != nil {
		return err
	}
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), podMetadata(), podPolicyIndex, podPolicy); err != nil {
		return fmt.Errorf("index pods by policy: %w", err)
	}
	err = ctrl.NewControllerManagedBy(mgr).
		Named("tokenpolicy").
		For(&api.TokenPolicy{}, builder.WithPredicates(policyChanged())).
		Owns(&corev1.ConfigMap{}).
		Owns(&networkingv1.NetworkPolicy{}).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.policiesOfRecord)).
		Watches(&api.SigningKey{}, handler.EnqueueRequestsFromMapFunc(r.policiesOfKey), builder.WithPredicates(readinessChanged())).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.allPolicies), builder.WithPredicates(named(options.Namespace, authoritiesSecret))).
		WatchesMetadata(&corev1.Pod{}, countLater(options.CountDelay), builder.WithPredicates(countChanged())).
		Watches(&corev1.Service{}, r.lookLater(options.CountDelay), builder.WithPredicates(routeChanged())).
		WatchesRawSource(source.Channel(found, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the TokenPolicy controller: %w", err)
	}
	if err := mgr.Add(manager.RunnableFunc(r.sweepOrphans)); err != nil {
		return fmt.Errorf("set up the removal of sessions without a policy: %w", err)
	}
	return nil
}

// reconciler holds what a phase needs beside its scope.
type reconciler struct {
	client   client.Client
	live     client.Reader // the API server itself, past the cache
	recorder events.EventRecorder
	tries    *reach.Tries // runs only where it is not turned off
	options  Options
}

// phase does one thing to the scope. What the user did wrong it notes with
// [scope.refuse]; what the system did wrong it returns.
type phase func(context.Context, *scope) error

// Reconcile makes one policy true.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	policy := &api.TokenPolicy{}
	if err := r.client.Get(ctx, req.NamespacedName, policy); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !policy.DeletionTimestamp.IsZero() {
		r.tries.Forget(req.NamespacedName)
		return owned.Settle(ctrl.Result{}, r.finalize(ctx, policy))
	}
	s := &scope{policy: policy}
	phases := []phase{
		r.ensureFinalizer,
		r.readPublished, r.resolveKeys, r.resolveAuthorities,
		r.checkRules, r.renderSpec, r.renewLastGood, r.publish,
		r.countPods, r.lookForWays, r.applyNetworkPolicy, r.tryPorts, r.writeStatus,
	}
	for _, run := range phases {
		if err := run(ctx, s); err != nil {
			return owned.Settle(ctrl.Result{}, err)
		}
	}
	return ctrl.Result{RequeueAfter: s.recheck()}, nil
}
