// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/token"
)

// readImport reads the private key that the spec imports. It goes past the cache:
// the manager may get this one Secret, if the tenant grants it, and list none.
func (r *reconciler) readImport(ctx context.Context, s *scope) error {
	if s.key.Spec.ImportFrom == nil {
		return nil
	}
	ref := s.key.Spec.ImportFrom.SecretRef
	secret := &corev1.Secret{}
	err := r.live.Get(ctx, client.ObjectKey{Namespace: s.key.Namespace, Name: ref.Name}, secret)
	switch {
	case apierrors.IsForbidden(err):
		s.refuse(api.ReasonSecretAccessDenied, "spec.importFrom.secretRef: namespace %q has not granted the operator to read Secret %q. To grant it, run:\n%s",
			s.key.Namespace, ref.Name, grant(s.key, r.options.Namespace))
		return nil
	case apierrors.IsNotFound(err):
		s.refuse(api.ReasonSecretNotFound, "spec.importFrom.secretRef.name: there is no Secret %q in namespace %q: create it, or name one that exists.", ref.Name, s.key.Namespace)
		return nil
	case err != nil:
		return fmt.Errorf("get Secret %q to import from: %w", ref.Name, err)
	}
	s.imported, s.refused = imported(s.key, secret)
	return nil
}

// imported takes the private key out of the Secret, or says what is wrong with it.
// No sentence repeats what the Secret holds.
func imported(key *api.SigningKey, secret *corev1.Secret) (*token.PrivateKey, *refusal) {
	ref, algorithm := key.Spec.ImportFrom.SecretRef, key.Spec.Algorithm
	pem, found := secret.Data[ref.Key]
	if !found {
		return nil, &refusal{api.ReasonSecretNotFound, fmt.Sprintf("spec.importFrom.secretRef.key: Secret %q has no key %q: add it, or name one that exists.", ref.Name, ref.Key)}
	}
	private, err := token.ParsePrivateKeyPEM(token.Algorithm(algorithm), pem)
	where := fmt.Sprintf("spec.importFrom.secretRef: key %q of Secret %q", ref.Key, ref.Name)
	switch {
	case err == nil:
		return private, nil
	case errors.Is(err, token.ErrKeyTooShort):
		return nil, &refusal{api.ReasonKeyTooShort, where + " is an RSA key of fewer than 2048 bits: import one of at least 2048."}
	case errors.Is(err, token.ErrWrongKeyType):
		return nil, &refusal{api.ReasonKeyInvalid, fmt.Sprintf("%s is a private key, but not one for %s: set spec.algorithm to the key's own, or import another key.", where, algorithm)}
	default:
		return nil, &refusal{api.ReasonKeyInvalid, where + " is not a private key in PEM (PKCS #8, SEC 1 or PKCS #1, not encrypted): put one there."}
	}
}

// grant is the two lines that let the operator read the one Secret.
func grant(key *api.SigningKey, operatorNamespace string) string {
	role := "tokenward-import-" + key.Name
	return fmt.Sprintf("kubectl create role %s --namespace=%s --verb=get --resource=secrets --resource-name=%s\n"+
		"kubectl create rolebinding %s --namespace=%s --role=%s --serviceaccount=%s:%s",
		role, key.Namespace, key.Spec.ImportFrom.SecretRef.Name,
		role, key.Namespace, role, operatorNamespace, owned.ServiceAccount)
}
