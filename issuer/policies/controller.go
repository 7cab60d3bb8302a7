// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// The issuer reads the specs of all namespaces, and Secrets of the operator's only.
//
// +kubebuilder:rbac:groups=tokenward.io,resources=tokenpolicies;signingkeys,verbs=get;list;watch
// +kubebuilder:rbac:groups="",namespace=tokenward-system,resources=secrets,verbs=get;list;watch

// Options of a Controller; all are required.
type Options struct {
	// Namespace of the operator, where key rings are.
	Namespace string
	Users     SourceOptions
	Stores    StoreOptions
}

// Controller keeps a Registry up to date.
type Controller struct {
	*Registry
	namespace string
	cached    client.Client
	sources   *sources
	stores    *stores
}

// New makes a controller; it reads what the manager's cache holds.
func New(cached client.Client, options Options) *Controller {
	return &Controller{
		Registry: &Registry{}, namespace: options.Namespace,
		cached: cached, sources: newSources(options.Users), stores: newStores(options.Stores),
	}
}

// Close the user sources and the session stores, once nothing is served any more.
func (c *Controller) Close() error { return errors.Join(c.sources.close(), c.stores.close()) }

// Users is the user source of this very state of a policy; false while the controller
// has not seen it, or for a kind of a newer release.
func (c *Controller) Users(policy *api.TokenPolicy) (Users, bool) { return c.sources.current(policy) }

// LookAtStore looks at the session store of this very state of a policy; false as with
// [Controller.Users].
func (c *Controller) LookAtStore(ctx context.Context, policy *api.TokenPolicy) (StoreLook, bool) {
	have, ok := c.stores.current(policy)
	switch {
	case !ok, errors.Is(have.err, errNewerRelease):
		return StoreLook{}, false
	case have.err != nil:
		return StoreLook{Err: have.err, Former: have.store != nil}, true
	}
	return have.store.Look(ctx), true
}

// Pools are the connections of the session stores that have any.
func (c *Controller) Pools(see func(policy types.NamespacedName, stats PoolStats)) {
	c.stores.each(func(policy types.NamespacedName, store Store) {
		if pooling, ok := store.(grantedStore); ok {
			if stats, open := pooling.pool(); open {
				see(policy, stats)
			}
		}
	})
}

// Reconcile makes the snapshot of one policy anew.
func (c *Controller) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	key := request.NamespacedName
	policy := &api.TokenPolicy{}
	err := c.cached.Get(ctx, key, policy)
	if apierrors.IsNotFound(err) || err == nil && !policy.DeletionTimestamp.IsZero() {
		c.remove(key)
		c.stores.forget(key)
		c.sources.forget(key)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("get TokenPolicy: %w", err)
	}
	next, err := c.build(ctx, policy)
	var refused *refusal.Error
	switch {
	case errors.As(err, &refused):
		log.FromContext(ctx).Info("the policy cannot be served", "reason", refused.Detail)
		c.set(key, entry{refused: refused})
		c.settle(key)
		return ctrl.Result{}, nil
	case err != nil && c.serves(key, policy.UID):
		return ctrl.Result{}, err // what is in force stays in force
	case err != nil:
		c.set(key, entry{refused: refusal.Unavailable("the TokenPolicy could not be loaded", err)})
		c.settle(key)
		return ctrl.Result{}, err
	}
	c.set(key, entry{policy: next})
	c.settle(key)
	return ctrl.Result{}, nil
}

// settle lets go of the users and sessions that the entry of now does not have.
func (c *Controller) settle(key types.NamespacedName) {
	c.sources.leaving.settle(key)
	c.stores.leaving.settle(key)
}

// build makes a snapshot. A *refusal.Error says that there is none until something
// that is watched changes; any other error is to be tried again.
func (c *Controller) build(ctx context.Context, policy *api.TokenPolicy) (*exchange.Policy, error) {
	// Users and sessions come first: the report on them does not wait for a key.
	source, usersErr := c.sources.of(policy)
	sessions, storeErr := c.stores.of(ctx, policy)
	err := errors.Join(usersErr, storeErr)
	switch {
	case errors.Is(err, errNewerRelease):
		return nil, refusal.Unavailable("the TokenPolicy names a user source or a session store of a newer release", nil)
	case err != nil:
		return nil, fmt.Errorf("open the user source and the session store: %w", err)
	}
	next := snapshot(policy)
	next.Users, next.Sessions, next.Attempts = source, sessions, sessions
	next.Keys, err = c.keys(ctx, policy)
	return next, err
}

// keys of the policy's SigningKey. A key that is gone or being deleted must not sign
// any more, so there is no falling back to the keys in force.
func (c *Controller) keys(ctx context.Context, policy *api.TokenPolicy) (exchange.Keys, error) {
	signingKey := &api.SigningKey{}
	err := c.cached.Get(ctx, client.ObjectKey{Namespace: policy.Namespace, Name: policy.Spec.SigningKeyRef.Name}, signingKey)
	if apierrors.IsNotFound(err) || err == nil && !signingKey.DeletionTimestamp.IsZero() {
		return exchange.Keys{}, refusal.Unavailable("the SigningKey that the TokenPolicy names does not exist", nil)
	}
	if err != nil {
		return exchange.Keys{}, fmt.Errorf("get SigningKey: %w", err)
	}
	ring, err := c.ring(ctx, signingKey)
	if err != nil {
		return exchange.Keys{}, err
	}
	keys, err := keysOf(ring)
	if errors.Is(err, errNoActiveKey) {
		return exchange.Keys{}, refusal.Unavailable("the SigningKey of the TokenPolicy has no key that signs yet", nil)
	}
	if err != nil {
		return exchange.Keys{}, fmt.Errorf("read the key set: %w", err)
	}
	if old := c.Registry.keys(client.ObjectKeyFromObject(policy)); !newer(keys, old) {
		log.FromContext(ctx).Error(nil, "the key ring went back to an older version: keeping the newer one",
			"version", keys.Set.Version(), "inForce", old.Set.Version())
		return old, nil
	}
	return keys, nil
}

const keyringKey = "keyring.json"

func keyringName(key *api.SigningKey) string { return keyringPrefix + string(key.UID) }

const keyringPrefix = "skey-"

func (c *Controller) ring(ctx context.Context, signingKey *api.SigningKey) (*keyring.Ring, error) {
	var found corev1.Secret
	err := c.cached.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: keyringName(signingKey)}, &found)
	if apierrors.IsNotFound(err) {
		return nil, refusal.Unavailable("the SigningKey of the TokenPolicy has no key yet", nil)
	}
	if err != nil {
		return nil, fmt.Errorf("get the key ring: %w", err)
	}
	ring, err := keyring.Parse(found.Data[keyringKey])
	if err != nil {
		return nil, fmt.Errorf("read the key ring: %w", err)
	}
	if ring.Owner != string(signingKey.UID) {
		return nil, fmt.Errorf("the key ring in Secret %q belongs to another SigningKey", found.Name)
	}
	return ring, nil
}
