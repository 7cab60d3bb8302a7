// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	apply "github.com/tokenward/tokenward/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

// FieldOwner is the name under which status.revocations is applied. It is not that of
// the issuer's conditions: what one of them applies must not remove what the other did.
const FieldOwner = client.FieldOwner("tokenward-issuer-orders")

// Event is the reason of an Event on a TokenPolicy. No Event names a subject: Events
// are copied to more places than the annotation is, and the status has the value.
type Event string

// The events.
const (
	// SessionsRevoked: an order was carried out.
	SessionsRevoked Event = "SessionsRevoked"
	// RevocationRefused (warning): the annotation's value is no order.
	RevocationRefused Event = "RevocationRefused"
	// RevocationDelayed (warning): the sessions could not be revoked yet; once for each order.
	RevocationDelayed Event = "RevocationDelayed"
)

// Events are in the policies' namespaces.
//
// +kubebuilder:rbac:groups=tokenward.io,resources=tokenpolicies/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// write applies the entries, if nobody has written the policy since it was read: of the
// replicas that see an order one claims it, and none counts what another has counted.
func (c *Controller) write(ctx context.Context, policy *api.TokenPolicy, next []api.Revocation, knows map[instance]known) error {
	status := apply.TokenPolicyStatus()
	var claims []instance
	for _, entry := range next {
		configuration := apply.Revocation().WithOrder(entry.Order).WithValue(entry.Value).
			WithState(entry.State).WithOrderTime(entry.OrderTime).WithSessions(entry.Sessions)
		if entry.CompletionTime != nil {
			configuration.WithCompletionTime(*entry.CompletionTime)
		}
		if entry.Message != "" {
			configuration.WithMessage(entry.Message)
		}
		status.WithRevocations(configuration)
		if before := entryOf(policy, entry.Order); before == nil || instanceOf(before) != instanceOf(&entry) {
			claims = append(claims, instanceOf(&entry))
		}
	}
	// If the answer is lost the claim may be ours all the same, so it is remembered first.
	for _, of := range claims {
		c.memory.change(policy, of, func(k *known) { *k = known{mine: true} })
	}
	configuration := apply.TokenPolicy(policy.Name, policy.Namespace).
		WithUID(policy.UID).WithResourceVersion(policy.ResourceVersion)
	if len(next) > 0 { // an empty status would be applied as null, and refused
		configuration.WithStatus(status)
	}
	if err := c.cached.Status().Apply(ctx, configuration, FieldOwner, client.ForceOwnership); err != nil {
		if apierrors.IsConflict(err) {
			for _, of := range claims {
				c.memory.drop(policy, of)
			}
		}
		return fmt.Errorf("apply the orders of TokenPolicy %q: %w", policy.Name, err)
	}
	c.wrote(policy, next, knows)
	return nil
}

// wrote makes Events of what has changed, and forgets what was counted.
func (c *Controller) wrote(policy *api.TokenPolicy, next []api.Revocation, knows map[instance]known) {
	after := map[instance]api.Revocation{}
	for _, entry := range next {
		of := instanceOf(&entry)
		after[of] = entry
		before := entryOf(policy, entry.Order)
		if entry.State == api.RevocationRefused && (before == nil || instanceOf(before) != of || before.State != entry.State) {
			c.Recorder.Eventf(policy, nil, corev1.EventTypeWarning, string(RevocationRefused), string(entry.Order), "%s", entry.Message)
		}
	}
	for _, before := range present(policy) {
		of := instanceOf(&before)
		k := knows[of]
		if before.State != api.RevocationInProgress {
			continue
		}
		entry, stays := after[of]
		switch {
		case !stays && k.swept:
			c.announce(policy, of, reported(before, k, c.Now()).Sessions)
		case stays && entry.State == api.RevocationCompleted:
			c.announce(policy, of, entry.Sessions)
		case stays && k.trouble != "" && !k.announced && entry.Message != before.Message:
			c.Recorder.Eventf(policy, nil, corev1.EventTypeWarning, string(RevocationDelayed), string(of.order),
				"%s", beginning(fmt.Sprintf("%s of %s: %s", of.order, stamp(of), entry.Message)))
		}
		c.memory.change(policy, of, func(now *known) {
			now.uncounted -= k.uncounted
			now.announced = now.announced || k.trouble != ""
		})
	}
}

// announce that sessions were revoked.
func (c *Controller) announce(policy *api.TokenPolicy, of instance, sessions int32) {
	c.Recorder.Eventf(policy, nil, corev1.EventTypeNormal, string(SessionsRevoked), string(of.order),
		"%s of %s: %d sessions are revoked.", of.order, stamp(of), sessions)
}

// late says what the second sweep of an order has found that is no longer in the status,
// and what it has left: err, where nobody will look again.
func (c *Controller) late(policy *api.TokenPolicy, of instance, err error) {
	if err != nil {
		c.Recorder.Eventf(policy, nil, corev1.EventTypeWarning, string(RevocationDelayed), string(of.order),
			"%s", beginning(fmt.Sprintf("%s of %s is given up. Not all sessions are revoked: %s. Then order it again.", of.order, stamp(of), trouble(err))))
	}
	if k := c.memory.all(policy)[of]; k.uncounted > 0 {
		c.announce(policy, of, reported(api.Revocation{State: api.RevocationInProgress, Order: of.order, Value: of.value, OrderTime: timeOf(of)}, k, c.Now()).Sessions)
	}
}

func timeOf(of instance) metav1.Time { return metav1.Unix(of.at, 0) }

// stamp is the time of an order as it is in the status.
func stamp(of instance) string { return timeOf(of).UTC().Format(time.RFC3339) }
