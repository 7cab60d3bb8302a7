// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sealing follows the Secret with the keys by which stored sessions are
// sealed, and keeps one sealer up to date for all session stores. The manager makes
// that Secret; what the keys are for is the business of internal/session/configmap.
package sealing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/tokenward/tokenward/internal/session/configmap"
)

// ErrNoKeys says that the Secret does not exist yet.
var ErrNoKeys = errors.New("no sealing keys yet")

// Keys holds the sealer.
type Keys struct {
	cached client.Client
	key    client.ObjectKey

	mu      sync.Mutex
	sealer  *configmap.Sealer
	version string
}

// New reads the Secret of the operator's namespace from the manager's cache.
func New(cached client.Client, namespace string) *Keys {
	return &Keys{cached: cached, key: client.ObjectKey{Namespace: namespace, Name: configmap.SecretName}}
}

// Sealer is the one sealer, with the keys that the Secret has now. Errors: [ErrNoKeys],
// or what is wrong with the Secret; keys once read stay in use through both.
func (k *Keys) Sealer(ctx context.Context) (*configmap.Sealer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.refresh(ctx)
	if k.sealer != nil {
		return k.sealer, nil
	}
	return nil, err
}

func (k *Keys) refresh(ctx context.Context) error {
	var found corev1.Secret
	err := k.cached.Get(ctx, k.key, &found)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("secret %s: %w", k.key, ErrNoKeys)
	}
	if err != nil {
		return fmt.Errorf("get Secret %s: %w", k.key, err)
	}
	version := string(found.UID) + "/" + found.ResourceVersion
	switch {
	case k.sealer == nil:
		sealer, err := configmap.NewSealer(found.Data)
		if err != nil {
			return fmt.Errorf("secret %s: %w", k.key, err)
		}
		k.sealer = sealer
	case version == k.version:
		return nil
	default:
		if err := k.sealer.Update(found.Data); err != nil {
			return fmt.Errorf("secret %s: %w", k.key, err)
		}
	}
	k.version = version
	return nil
}

// Reconcile takes a changed Secret.
func (k *Keys) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.refresh(ctx)
	if errors.Is(err, ErrNoKeys) {
		return ctrl.Result{}, nil // its coming is an event
	}
	return ctrl.Result{}, err
}

// SetupWithManager registers the watch, on every replica.
func (k *Keys) SetupWithManager(mgr ctrl.Manager) error {
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return client.ObjectKeyFromObject(o) == k.key })
	return ctrl.NewControllerManagedBy(mgr).
		Named("sealing").
		For(&corev1.Secret{}, builder.WithPredicates(ours)).
		WithOptions(controller.Options{NeedLeaderElection: new(false)}).
		Complete(k)
}

// Ready says why no session can be stored.
func (k *Keys) Ready(r *http.Request) error {
	_, err := k.Sealer(r.Context())
	return err
}
