// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package userstatus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	apply "github.com/tokenward/tokenward/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/users/secret"
)

// FieldOwner is the name under which the issuer applies its condition.
const FieldOwner = client.FieldOwner("tokenward-issuer")

// A source is looked at again after recheck and up to as much more. A source that
// does not work is looked at sooner at first, and less and less often: somebody is
// probably just mending it.
const (
	recheck      = 30 * time.Second
	firstRecheck = 2 * time.Second
)

// Only the condition is written. The user Secrets are not named here on purpose:
// the issuer reads those that tenants grant, and no others.
//
// +kubebuilder:rbac:groups=tokenward.io,resources=tokenpolicies/status,verbs=patch

// ServiceAccount that a tenant grants its Secret to.
type ServiceAccount struct{ Namespace, Name string }

// Sources finds the user source of a policy.
type Sources interface {
	For(policy *api.TokenPolicy) *secret.Source
	// Forget is called when the policy is gone.
	Forget(key types.NamespacedName)
}

// Options of a Controller; all are required.
type Options struct {
	Sources Sources
	// Issuer is the account that reads.
	Issuer ServiceAccount
	Now    func() time.Time
}

// Controller writes the condition.
type Controller struct {
	client client.Client
	Options
}

// New makes a controller over the manager's client.
func New(c client.Client, options Options) *Controller {
	return &Controller{client: c, Options: options}
}

// SetupWithManager registers it, on every replica: whichever looks first writes, and
// the others find nothing to do.
func (c *Controller) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("userstatus").
		For(&api.TokenPolicy{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{NeedLeaderElection: new(false), MaxConcurrentReconciles: 4}).
		Complete(c)
}

// Reconcile looks at the users of one policy.
func (c *Controller) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	policy := &api.TokenPolicy{}
	err := c.client.Get(ctx, request.NamespacedName, policy)
	if apierrors.IsNotFound(err) || err == nil && !policy.DeletionTimestamp.IsZero() {
		c.Sources.Forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("get TokenPolicy: %w", err)
	}
	if policy.Spec.Users.Secret == nil {
		// Only a newer release's schema admits it; that release reports on it.
		return ctrl.Result{}, nil
	}
	report, err := c.Sources.For(policy).Check(ctx)
	wanted := condition(policy, report, err, c.Issuer)
	if wanted.Reason == api.ReasonUsersUnavailable {
		log.FromContext(ctx).Error(err, "the users cannot be read")
	}
	has := meta.FindStatusCondition(policy.Status.Conditions, wanted.Type)
	wanted.LastTransitionTime = metav1.NewTime(c.Now()).Rfc3339Copy()
	if has != nil && has.Status == wanted.Status {
		wanted.LastTransitionTime = has.LastTransitionTime
	}
	if err := c.report(ctx, policy, has, wanted); err != nil {
		return ctrl.Result{}, err
	}
	wait := c.wait(wanted)
	return ctrl.Result{RequeueAfter: wait + rand.N(wait)}, nil //nolint:gosec // spreads load, guards nothing
}

// wait is how long a look is good for.
func (c *Controller) wait(found metav1.Condition) time.Duration {
	if found.Status == metav1.ConditionTrue {
		return recheck
	}
	return min(max(c.Now().Sub(found.LastTransitionTime.Time), firstRecheck), recheck)
}

// report applies the condition, unless the status says it already.
func (c *Controller) report(ctx context.Context, policy *api.TokenPolicy, has *metav1.Condition, wanted metav1.Condition) error {
	if has != nil && equality.Semantic.DeepEqual(*has, wanted) {
		return nil
	}
	configuration := apply.TokenPolicy(policy.Name, policy.Namespace).
		WithUID(policy.UID). // a namesake that was made meanwhile does not get it
		WithStatus(apply.TokenPolicyStatus().WithConditions(applymeta.Condition().
			WithType(wanted.Type).WithStatus(wanted.Status).WithReason(wanted.Reason).WithMessage(wanted.Message).
			WithObservedGeneration(wanted.ObservedGeneration).WithLastTransitionTime(wanted.LastTransitionTime)))
	if err := c.client.Status().Apply(ctx, configuration, FieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("apply the condition %s: %w", wanted.Type, err)
	}
	return nil
}
