// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

func (r *reconciler) ensureFinalizer(ctx context.Context, s *scope) error {
	return owned.AddFinalizer(ctx, r.client, s.key)
}

// finalize deletes what no owner reference can reach in the operator's namespace. It
// asks no policy whether it still needs the key: a namespace that is being deleted
// must never wait for us.
func (r *reconciler) finalize(ctx context.Context, key *api.SigningKey) error {
	if !controllerutil.ContainsFinalizer(key, api.Finalizer) {
		return nil
	}
	meta := metav1.ObjectMeta{Namespace: r.options.Namespace, Name: owned.KeyringName(key.UID)}
	for _, stored := range []client.Object{&corev1.Secret{ObjectMeta: meta}, &corev1.ConfigMap{ObjectMeta: meta}} {
		if err := client.IgnoreNotFound(r.client.Delete(ctx, stored)); err != nil {
			return fmt.Errorf("delete %T %q of SigningKey %q: %w", stored, meta.Name, key.Name, err)
		}
	}
	return owned.RemoveFinalizer(ctx, r.client, key)
}
