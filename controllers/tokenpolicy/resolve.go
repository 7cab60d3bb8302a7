// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/token"
)

const (
	// authoritiesSecret and authoritiesKey are where the certificates controller
	// puts every authority that is to be trusted, in PEM.
	authoritiesSecret = "tokenward-ca"
	authoritiesKey    = "bundle.pem"
)

// resolveKeys finds the public key set of the policy's SigningKey.
func (r *reconciler) resolveKeys(ctx context.Context, s *scope) error {
	ref := client.ObjectKey{Namespace: s.policy.Namespace, Name: s.policy.Spec.SigningKeyRef.Name}
	signingKey := &api.SigningKey{}
	err := r.client.Get(ctx, ref, signingKey)
	switch {
	case apierrors.IsNotFound(err):
		s.refuse(api.ReasonSigningKeyNotFound, "spec.signingKeyRef.name: there is no SigningKey %q in namespace %q: create it, or name one that exists.", ref.Name, ref.Namespace)
		return nil
	case err != nil:
		return fmt.Errorf("get SigningKey %q: %w", ref.Name, err)
	case !signingKey.DeletionTimestamp.IsZero():
		s.refuse(api.ReasonSigningKeyNotFound, "spec.signingKeyRef.name: SigningKey %q is being deleted: name another one, or create it again.", ref.Name)
		return nil
	}
	ring, err := readRing(ctx, r.client, r.options.Namespace, signingKey)
	if err != nil {
		return err
	}
	if ring, err = r.newest(ctx, s, signingKey, ring); err != nil {
		return err
	}
	if ring == nil || !signs(ring) {
		s.refuse(api.ReasonSigningKeyNotReady, "spec.signingKeyRef.name: SigningKey %q has no key that signs%s.", ref.Name, because(signingKey))
	}
	if ring == nil {
		return nil
	}
	// Even without a key that signs: a revoked key must leave the published key set.
	s.keys, err = ring.KeySet()
	if err != nil {
		return fmt.Errorf("key set of SigningKey %q: %w", ref.Name, err)
	}
	return nil
}

// newest reads the record again, past the cache, when the settings hold a newer key
// set than the cache does: an older one must never replace it (design section 5).
// What the API server itself says is the truth, so a key set that somebody wrote
// into the settings by hand does not last.
func (r *reconciler) newest(ctx context.Context, s *scope, signingKey *api.SigningKey, cached *keyring.Ring) (*keyring.Ring, error) {
	if s.published == nil {
		return cached, nil
	}
	published, err := token.ParseKeySet(s.published.Keys)
	if err != nil || published.Owner() != string(signingKey.UID) {
		return cached, nil //nolint:nilerr // an unreadable key set is replaced
	}
	if cached != nil && published.Version() <= cached.Version {
		return cached, nil
	}
	return readRing(ctx, r.live, r.options.Namespace, signingKey)
}

// readRing reads the public record of a SigningKey; nil when there is none yet.
func readRing(ctx context.Context, reader client.Reader, namespace string, signingKey *api.SigningKey) (*keyring.Ring, error) {
	name := owned.KeyringName(signingKey.UID)
	record := &corev1.ConfigMap{}
	err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, record)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // no record is an answer, not an error
	}
	if err != nil {
		return nil, fmt.Errorf("get public record %q: %w", name, err)
	}
	ring, err := keyring.Parse([]byte(record.Data[owned.KeyringKey]))
	if err != nil {
		return nil, fmt.Errorf("public record %q: %w", name, err)
	}
	return ring, nil
}

func signs(ring *keyring.Ring) bool {
	_, ok := ring.Active()
	return ok
}

// because repeats what the SigningKey says about itself.
func because(signingKey *api.SigningKey) string {
	ready := meta.FindStatusCondition(signingKey.Status.Conditions, api.ConditionReady)
	if ready == nil {
		return ""
	}
	return fmt.Sprintf(" (%s: see `kubectl describe skey %s`)", ready.Reason, signingKey.Name)
}

// resolveAuthorities finds the certificates by which sidecars know the issuer.
func (r *reconciler) resolveAuthorities(ctx context.Context, s *scope) error {
	s.where.issuerURL = r.options.IssuerURL
	secret := &corev1.Secret{}
	err := r.client.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: authoritiesSecret}, secret)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get Secret %q: %w", authoritiesSecret, err)
	}
	s.where.authorities = string(secret.Data[authoritiesKey])
	if s.where.authorities == "" {
		s.refuse(api.ReasonCertificatesPending, "the certificates of the Tokenward installation are not made yet; nothing is wrong with this policy.")
	}
	return nil
}

// checkRules refuses rules that can never match.
func (r *reconciler) checkRules(_ context.Context, s *scope) error {
	prefix := cmp.Or(s.policy.Spec.Endpoints.Prefix, defaultPrefix)
	if found := unreachableRules(s.policy.Spec.Rules, prefix); len(found) > 0 {
		s.refuse(api.ReasonRuleUnreachable, "%s", explain(found, prefix))
	}
	return nil
}
