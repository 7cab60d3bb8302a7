// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	apply "github.com/tokenward/tokenward/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/changed"
	"github.com/tokenward/tokenward/issuer/granted"
	"github.com/tokenward/tokenward/issuer/policies"
)

// The names under which the issuer applies its conditions. There are two, because what
// an owner leaves out of its next configuration is removed.
const (
	UsersOwner = client.FieldOwner("tokenward-issuer")
	StoreOwner = client.FieldOwner("tokenward-issuer-store")
)

// A source or store is looked at again after recheck and up to as much more. One that does not
// work is looked at sooner at first, and less and less often: somebody is probably just
// mending it.
const (
	recheck      = 30 * time.Second
	firstRecheck = 2 * time.Second
	// unseen is when to look for what the policies' controller has not opened yet.
	unseen = 200 * time.Millisecond
	// atOnce is how many policies are looked at at one time, and ofNamespace how many of
	// one namespace. Most of a look at a server that does not answer is waiting, and
	// whoever names many of those waits for nobody but himself: what is over ofNamespace
	// comes again after turn and up to as much more.
	atOnce      = 64
	ofNamespace = 4
	turn        = time.Second
)

// Only the conditions are written. The Secrets are not named here on purpose: the issuer
// reads those that tenants grant, and no others.
//
// +kubebuilder:rbac:groups=tokenward.io,resources=tokenpolicies/status,verbs=patch

// ServiceAccount that a tenant grants its Secret to.
type ServiceAccount struct{ Namespace, Name string }

// Parts are what the policies are served with. Both are false for a state of the policy
// that is not served yet.
type Parts interface {
	Users(policy *api.TokenPolicy) (policies.Users, bool)
	LookAtStore(ctx context.Context, policy *api.TokenPolicy) (policies.StoreLook, bool)
}

// Options of a Controller; all are required.
type Options struct {
	Parts Parts
	// Issuer is the account that reads.
	Issuer ServiceAccount
	Now    func() time.Time
}

// Controller writes the conditions.
type Controller struct {
	client client.Client
	Options
	looking shares
	known   memories
}

// New makes a controller over the manager's client.
func New(c client.Client, options Options) *Controller {
	return &Controller{client: c, Options: options}
}

// SetupWithManager registers it, on every replica: whichever looks first writes, and
// the others find nothing to do.
func (c *Controller) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("report").
		For(&api.TokenPolicy{}, builder.WithPredicates(changed.Spec())).
		WithOptions(controller.Options{NeedLeaderElection: new(false), MaxConcurrentReconciles: atOnce}).
		Complete(c)
}

// Reconcile looks at the users and the store of one policy. All policies are equal before
// the queue: one that was there at the start would else stay behind all that came later.
func (c *Controller) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if !c.looking.take(request.Namespace) {
		return ctrl.Result{RequeueAfter: spread(turn), Priority: new(0)}, nil
	}
	defer c.looking.giveBack(request.Namespace)
	again, err := c.reconcile(ctx, request)
	return ctrl.Result{RequeueAfter: again, Priority: new(0)}, err
}

// reconcile returns when to look again; zero is never.
func (c *Controller) reconcile(ctx context.Context, request ctrl.Request) (time.Duration, error) {
	policy := &api.TokenPolicy{}
	err := c.client.Get(ctx, request.NamespacedName, policy)
	if apierrors.IsNotFound(err) || err == nil && !policy.DeletionTimestamp.IsZero() {
		c.known.forget(request.NamespacedName)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get TokenPolicy: %w", err)
	}
	_, users := usersPart(policy)
	_, store := storePart(policy)
	if !users || !store {
		// Only a newer release's schema admits it; that release reports on it.
		return 0, nil
	}
	found, ok, err := c.look(ctx, policy)
	if err != nil {
		return 0, err
	}
	if !ok {
		return unseen, nil
	}
	next := recheck
	// The manager goes by this order: a report on users alone is that of an older release.
	for _, part := range []struct {
		wanted metav1.Condition
		owner  client.FieldOwner
	}{{found.store, StoreOwner}, {found.users, UsersOwner}} {
		wait, err := c.report(ctx, policy, part.wanted, part.owner)
		if err != nil {
			return 0, err
		}
		next = min(next, wait)
	}
	return spread(next), nil
}

// spread keeps what begins together from coming again together.
func spread(d time.Duration) time.Duration {
	return d + rand.N(d) //nolint:gosec // spreads load, guards nothing
}

type conditions struct{ users, store metav1.Condition }

// look at both at the same time. It is false when there is nothing to look at yet.
func (c *Controller) look(ctx context.Context, policy *api.TokenPolicy) (conditions, bool, error) {
	source, ok := c.Parts.Users(policy)
	if !ok {
		return conditions{}, false, nil
	}
	var users policies.UsersLook
	var looking sync.WaitGroup
	looking.Go(func() { users = source.Look(ctx) })
	store, ok := c.Parts.LookAtStore(ctx, policy)
	looking.Wait()
	switch {
	case ctx.Err() != nil: // says nothing about them
		return conditions{}, false, fmt.Errorf("look at users and store: %w", ctx.Err())
	case !ok, errors.Is(users.Err, granted.ErrClosed), errors.Is(store.Err, granted.ErrClosed):
		return conditions{}, false, nil // the policy has just changed
	}
	found := conditions{users: usersCondition(policy, users, c.Issuer), store: storeCondition(policy, store, c.Issuer)}
	if found.users.Reason == api.ReasonUsersUnavailable {
		log.FromContext(ctx).Error(users.Err, "the users cannot be read")
	}
	if found.store.Reason == api.ReasonStoreUnavailable {
		log.FromContext(ctx).Error(store.Err, "the session store cannot be used")
	}
	return found, true, nil
}

// wait is how long a look is good for.
func (c *Controller) wait(found metav1.Condition) time.Duration {
	if found.Status == metav1.ConditionTrue {
		return recheck
	}
	return min(max(c.Now().Sub(found.LastTransitionTime.Time), firstRecheck), recheck)
}

// report applies the condition, unless the status says it already, or has what another
// issuer has found. It returns for how long that is good.
func (c *Controller) report(ctx context.Context, policy *api.TokenPolicy, wanted metav1.Condition, owner client.FieldOwner) (time.Duration, error) {
	has := meta.FindStatusCondition(policy.Status.Conditions, wanted.Type)
	wanted.LastTransitionTime = metav1.NewTime(c.Now()).Rfc3339Copy()
	if has != nil && has.Status == wanted.Status {
		wanted.LastTransitionTime = has.LastTransitionTime
	}
	key := memoryKey{client.ObjectKeyFromObject(policy), wanted.Type}
	if has != nil && equality.Semantic.DeepEqual(*has, wanted) {
		c.known.stands(key, wanted)
		return c.wait(wanted), nil
	}
	if left := c.known.hold(key, has, wanted, c.Now()); left > 0 {
		return min(max(left, firstRecheck), recheck), nil
	}
	configuration := apply.TokenPolicy(policy.Name, policy.Namespace).
		WithUID(policy.UID). // a namesake that was made meanwhile does not get it
		WithStatus(apply.TokenPolicyStatus().WithConditions(applymeta.Condition().
			WithType(wanted.Type).WithStatus(wanted.Status).WithReason(wanted.Reason).WithMessage(wanted.Message).
			WithObservedGeneration(wanted.ObservedGeneration).WithLastTransitionTime(wanted.LastTransitionTime)))
	if err := c.client.Status().Apply(ctx, configuration, owner, client.ForceOwnership); err != nil {
		return 0, fmt.Errorf("apply the condition %s: %w", wanted.Type, err)
	}
	c.known.stands(key, wanted)
	return c.wait(wanted), nil
}
