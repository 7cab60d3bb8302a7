// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

const (
	// maxRounds bounds how often a reconciliation looks anew because somebody else has
	// written the policy meanwhile.
	maxRounds = 10
	// sweepTimeout bounds one sweep; what is left is done by the next one. A store that
	// was replaced stays open for longer than that.
	sweepTimeout = 25 * time.Second
	// A sweep that did not succeed is tried again after firstDelay, then after twice as
	// long each time, up to lastDelay.
	firstDelay = time.Second
	lastDelay  = 30 * time.Second
)

// Policies finds the policy in force, and with it the session store.
type Policies interface {
	Policy(namespace, name string) (*exchange.Policy, error)
}

// Options of a Controller; all are required.
type Options struct {
	Policies Policies
	Recorder events.EventRecorder
	Now      func() time.Time
}

// Controller carries out orders.
type Controller struct {
	Options
	cached client.Client
	// live reads past the cache, which may not show yet what another replica has claimed.
	live   client.Reader
	memory memory
}

// New makes a controller. It writes through c, and reads live before it decides.
func New(c client.Client, live client.Reader, options Options) *Controller {
	return &Controller{Options: options, cached: c, live: live}
}

// Reconcile sees to the orders of one policy.
func (c *Controller) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	policy := &api.TokenPolicy{}
	err := c.cached.Get(ctx, request.NamespacedName, policy)
	if err == nil && !c.concerns(policy) {
		return ctrl.Result{}, nil // most policies have no orders, and cost no request
	}
	for range maxRounds {
		policy = &api.TokenPolicy{}
		err = c.live.Get(ctx, request.NamespacedName, policy)
		if apierrors.IsNotFound(err) || err == nil && !policy.DeletionTimestamp.IsZero() {
			c.memory.forget(request.NamespacedName) // its sessions go with it
			return ctrl.Result{}, nil
		}
		if err != nil {
			return ctrl.Result{}, fmt.Errorf("get TokenPolicy: %w", err)
		}
		wait, again, err := c.round(ctx, policy)
		switch {
		case apierrors.IsConflict(err), err == nil && again:
			continue
		case apierrors.IsNotFound(err):
			continue // deleted a moment ago; the next look tells
		case err != nil:
			return ctrl.Result{}, err
		}
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	return ctrl.Result{RequeueAfter: firstDelay}, nil
}

func (c *Controller) concerns(policy *api.TokenPolicy) bool {
	for _, kind := range kinds {
		if annotation(policy, kind.order) != nil {
			return true
		}
	}
	return len(policy.Status.Revocations) > 0 || len(c.memory.all(policy)) > 0
}

// round makes at most one write: it looks at the policy as it is now, claims or clears
// what is to be, or else sweeps, and reports. It says whether there is more to do now,
// or how long to wait; 0 is until something changes.
func (c *Controller) round(ctx context.Context, policy *api.TokenPolicy) (wait time.Duration, again bool, err error) {
	c.memory.saw(policy)
	knows, now := c.memory.all(policy), c.Now()
	var sweeps []instance
	next := make([]api.Revocation, 0, len(kinds))
	changed, current := false, map[instance]bool{}
	for _, kind := range kinds {
		wanted, entry := annotation(policy, kind.order), entryOf(policy, kind.order)
		var k known
		if entry != nil {
			k = knows[instanceOf(entry)]
			current[instanceOf(entry)] = true
		}
		v := decide(wanted, entry, k, now)
		wait = sooner(wait, v.wait)
		switch v.step {
		case claim:
			next, changed = append(next, claimed(kind.order, *wanted, entry, now)), true
		case clearEntry:
			changed = true
		case sweep:
			sweeps = append(sweeps, instanceOf(entry))
			fallthrough
		case rest:
			if entry != nil {
				next = append(next, reported(*entry, k, now))
			}
		}
	}
	if changed || !equality.Semantic.DeepEqual(next, present(policy)) {
		return 0, true, c.write(ctx, policy, next, knows)
	}
	// Orders whose annotation went on before their second sweep.
	for of, k := range knows {
		if current[of] || k.done {
			continue
		}
		at := of.due()
		if k.notBefore.After(at) {
			at = k.notBefore
		}
		if now.Before(at) {
			wait = sooner(wait, at.Sub(now))
			continue
		}
		sweeps = append(sweeps, of)
	}
	for _, of := range sweeps {
		if err := c.sweep(ctx, policy, of, current[of]); err != nil {
			return 0, false, err
		}
	}
	return wait, len(sweeps) > 0, nil
}

// present are the entries of the status, in our order.
func present(policy *api.TokenPolicy) []api.Revocation {
	entries := make([]api.Revocation, 0, len(kinds))
	for _, kind := range kinds {
		if entry := entryOf(policy, kind.order); entry != nil {
			entries = append(entries, *entry)
		}
	}
	return entries
}

// sooner of two waits, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// sweep revokes what an order selects, and remembers what came of it. Its error is the
// context's; a store that does not answer is remembered as trouble.
func (c *Controller) sweep(ctx context.Context, policy *api.TokenPolicy, of instance, reported bool) error {
	began := c.Now()
	revoked, err := c.revoke(ctx, policy, of, began)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, unreadable := errors.AsType[*session.UnreadableError](err)
	logger := log.FromContext(ctx).WithValues("order", of.order, "orderTime", stamp(of))
	c.memory.change(policy, of, func(k *known) {
		k.uncounted += revoked
		// What cannot be read holds nothing up but its own order, and that for as long as
		// somebody can see it.
		k.swept, k.stuck = k.swept || err == nil || unreadable, unreadable
		k.done = (err == nil || unreadable && !reported) && !began.Before(of.due())
		if err == nil {
			k.trouble, k.failures, k.notBefore = "", 0, time.Time{}
			return
		}
		k.trouble, k.failures = trouble(err), k.failures+1
		k.notBefore = c.Now().Add(min(firstDelay<<min(k.failures-1, 10), lastDelay))
	})
	switch {
	case err != nil:
		logger.Error(err, "an order to end sessions is delayed", "sessions", revoked)
	case revoked > 0:
		logger.Info("sessions were ended by order", "sessions", revoked)
	}
	if !reported && (err == nil || unreadable) {
		c.late(policy, of, err)
	}
	return nil
}

var errOther = errors.New("the issuer serves another TokenPolicy of that name still")

func (c *Controller) revoke(ctx context.Context, policy *api.TokenPolicy, of instance, now time.Time) (int, error) {
	served, err := c.Policies.Policy(policy.Namespace, policy.Name)
	if err != nil {
		return 0, err
	}
	if string(served.UID) != string(policy.UID) {
		return 0, errOther
	}
	which, ok := of.selection()
	if !ok {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	return served.Sessions.RevokeWhere(ctx, which, session.Revocation{At: now, Reason: token.SessionRevoked})
}

// trouble is what the status says about an error. The error itself is for the log: it
// may hold addresses, and differs from one try to the next.
func trouble(err error) string {
	var refused *refusal.Error
	var unreadable *session.UnreadableError
	switch {
	case errors.As(err, &refused) && refused.Detail != "":
		return refused.Detail
	case errors.Is(err, errOther):
		return errOther.Error()
	case errors.As(err, &unreadable):
		return fmt.Sprintf("all that can be read are; %d cannot be opened, and may be anybody's: %s. To go on, %s (docs/operations.md, \"End sessions\", has the commands)",
			unreadable.Records, unreadable.Where(), unreadable.Remedy)
	}
	return "the session store does not answer"
}
