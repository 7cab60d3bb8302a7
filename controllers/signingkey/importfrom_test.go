// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

func importing(algorithm api.SigningAlgorithm) api.SigningKeySpec {
	return api.SigningKeySpec{Algorithm: algorithm, ImportFrom: &api.ImportSource{
		SecretRef: api.SecretKeyReference{Name: "legacy", Key: "tls.key"},
	}}
}

func ecPEM(tb testing.TB, curve elliptic.Curve) []byte {
	tb.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return pkcs8PEM(tb, key)
}

func pkcs8PEM(tb testing.TB, key any) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (w *world) secret(data map[string][]byte) *corev1.Secret {
	w.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "legacy"}, Data: data}
	if err := cluster.Admin.Create(w.Context(), secret); err != nil {
		w.Fatal(err)
	}
	return secret
}

// grant does what the lines of the condition do, for the Role's name they give.
func (w *world) grant(name string) {
	w.Helper()
	meta := metav1.ObjectMeta{Namespace: w.namespace, Name: name}
	for _, object := range []client.Object{
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"legacy"}}}},
		&rbacv1.RoleBinding{
			ObjectMeta: meta,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: controllertest.Namespace, Name: owned.ServiceAccount}},
		},
	} {
		if err := cluster.Admin.Create(w.Context(), object); err != nil {
			w.Fatal(err)
		}
	}
}

func TestAnImportNeedsTheTenantsGrant(t *testing.T) {
	w := newWorld(t)
	w.secret(map[string][]byte{"tls.key": ecPEM(t, elliptic.P256())})
	key := w.create("shop", importing("ES256"))

	denied := w.ready(key, api.ReasonSecretAccessDenied)
	lines := "kubectl create role tokenward-import-shop --namespace=" + w.namespace + " --verb=get --resource=secrets --resource-name=legacy\n" +
		"kubectl create rolebinding tokenward-import-shop --namespace=" + w.namespace + " --role=tokenward-import-shop --serviceaccount=tokenward-system:tokenward-manager"
	if denied.Status != metav1.ConditionFalse || !strings.HasSuffix(denied.Message, lines) {
		t.Errorf("the condition does not end with the lines to paste: %s", denied.Message)
	}
	if len(key.Status.Keys) != 0 {
		t.Errorf("there are keys without an import: %+v", key.Status.Keys)
	}
	w.grant("tokenward-import-shop")
	w.touch(key)
	w.ready(key, api.ReasonKeyActive)
	if err := w.verify(key, w.sign(key)); err != nil {
		t.Errorf("a token of the imported key: %v", err)
	}
}

func TestWhatCannotBeImported(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		algorithm api.SigningAlgorithm
		data      map[string][]byte // nil: no Secret
		reason    string
		names     []string // what the message must name
	}{
		"no such Secret":       {"ES256", nil, api.ReasonSecretNotFound, []string{"spec.importFrom.secretRef.name", `"legacy"`}},
		"no such key in it":    {"ES256", map[string][]byte{"other": []byte("CANARY")}, api.ReasonSecretNotFound, []string{"spec.importFrom.secretRef.key", `"tls.key"`}},
		"not a key":            {"ES256", map[string][]byte{"tls.key": []byte("CANARY")}, api.ReasonKeyInvalid, []string{"spec.importFrom.secretRef", "PEM"}},
		"empty":                {"ES256", map[string][]byte{"tls.key": {}}, api.ReasonKeyInvalid, []string{"spec.importFrom.secretRef"}},
		"another type":         {"RS256", map[string][]byte{"tls.key": ecPEM(t, elliptic.P256())}, api.ReasonKeyInvalid, []string{"RS256", "spec.algorithm"}},
		"another curve":        {"ES256", map[string][]byte{"tls.key": ecPEM(t, elliptic.P384())}, api.ReasonKeyInvalid, []string{"ES256", "spec.algorithm"}},
		"an RSA key too short": {"RS256", map[string][]byte{"tls.key": pkcs8PEM(t, short)}, api.ReasonKeyTooShort, []string{"2048"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.grant("any-name")
			if test.data != nil {
				w.secret(test.data)
			}
			key := w.create("shop", importing(test.algorithm))
			condition := w.ready(key, test.reason)
			for _, part := range test.names {
				if !strings.Contains(condition.Message, part) {
					t.Errorf("the message does not name %s: %s", part, condition.Message)
				}
			}
			if strings.Contains(condition.Message, "CANARY") {
				t.Errorf("the message repeats the Secret: %s", condition.Message)
			}
			w.requests.Quiet(t, 500*time.Millisecond)
			if writes := len(w.requests.Writes()); writes > 3 {
				t.Errorf("%d writes for a mistake that nobody mended: %v", writes, w.requests.Writes())
			}
		})
	}
}

// A broken import must neither take the keys away that there are, nor have one generated.
func TestAnImportThatBreaksLaterChangesNoKeys(t *testing.T) {
	w := newWorld(t)
	w.grant("any-name")
	secret := w.secret(map[string][]byte{"tls.key": ecPEM(t, elliptic.P256())})
	key := w.create("shop", importing("ES256"))
	w.ready(key, api.ReasonKeyActive)
	active, old := key.Status.ActiveKeyID, w.sign(key)

	secret.Data["tls.key"] = []byte("overwritten")
	if err := cluster.Admin.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.touch(key)
	broken := w.ready(key, api.ReasonKeyInvalid)
	if !strings.Contains(broken.Message, active) {
		t.Errorf("the message does not say which key goes on: %s", broken.Message)
	}
	if err := cluster.Admin.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.pass(key, defaultInterval*2)
	w.ready(key, api.ReasonSecretNotFound)
	w.states(key, api.KeyActive)
	if key.Status.ActiveKeyID != active {
		t.Error("another key signs")
	}
	if err := w.verify(key, old); err != nil {
		t.Errorf("a token from before: %v", err)
	}

	w.secret(map[string][]byte{"tls.key": ecPEM(t, elliptic.P256())})
	w.touch(key)
	w.states(key, api.KeyPublished, api.KeyActive)
	w.pass(key, defaultPublishBefore)
	w.states(key, api.KeyActive, api.KeyRetired)
	w.ready(key, api.ReasonKeyActive)
	if err := w.verify(key, old); err != nil {
		t.Errorf("a token of the first import: %v", err)
	}
}

func TestALostSecretOfAnImportedKeyIsImportedAgain(t *testing.T) {
	w := newWorld(t)
	w.grant("any-name")
	w.secret(map[string][]byte{"tls.key": ecPEM(t, elliptic.P256())})
	key := w.create("shop", importing("ES256"))
	w.ready(key, api.ReasonKeyActive)
	active := key.Status.ActiveKeyID
	w.deleteStored(key, &corev1.Secret{})
	controllertest.Eventually(t, "the Secret is back", func(ctx context.Context) error {
		_, _, err := stored(ctx, key)
		return err
	})
	w.states(key, api.KeyActive)
	if key.Status.ActiveKeyID != active {
		t.Error("another key signs, although the private half could be had")
	}
}
