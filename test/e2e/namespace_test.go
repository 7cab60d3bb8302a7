// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNamespaceDeleted takes a namespace away with all that is in it at once: finalizers
// do not hold it, and what was made for it elsewhere goes with it.
func TestNamespaceDeleted(t *testing.T) {
	t.Parallel()
	namespace := newTenant(t)
	shop := startApplication(t, namespace, "shop", 2)
	requireServed(t, shop, logIn(t, shop))
	wrong := world.caller.call(t, http.MethodPost, shop+"/auth/token", "", `{"id":"alice","phone":"0","password":"guess"}`)
	if wrong.reason() != "credentials_invalid" {
		t.Fatalf("a wrong password: status %d and reason %q", wrong.status, wrong.reason())
	}
	had := ownedBy(t, namespace)
	for _, kind := range []string{"Secret signing-key", "ConfigMap signing-key", "ConfigMap sessions"} {
		if had[kind] == 0 {
			t.Errorf("%s has no %s of the namespace, and this test is to see it go; it has %v", operatorNamespace, kind, had)
		}
	}

	began := time.Now()
	if err := world.kube.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	err := until(t.Context(), func(ctx context.Context) error {
		found, err := world.kube.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, fmt.Errorf("the namespace is still there: %+v", found.Status.Conditions))
	})
	if err != nil {
		t.Fatal(err)
	}
	world.figures.add("namespace deleted with policy, key and 2 pods", "gone after %s", time.Since(began).Round(time.Second))
	if left := ownedBy(t, namespace); len(left) != 0 {
		t.Errorf("%s still has %v of a namespace that is gone", operatorNamespace, left)
	}
}

// ownedBy counts what the operator's namespace has for another one, by kind and component.
func ownedBy(t *testing.T, namespace string) map[string]int {
	t.Helper()
	selector := metav1.ListOptions{LabelSelector: "tokenward.io/owner-namespace=" + namespace}
	secrets, err := world.kube.CoreV1().Secrets(operatorNamespace).List(t.Context(), selector)
	if err != nil {
		t.Fatal(err)
	}
	maps, err := world.kube.CoreV1().ConfigMaps(operatorNamespace).List(t.Context(), selector)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	count := func(kind string, labels map[string]string) { counts[kind+" "+labels["tokenward.io/component"]]++ }
	for _, s := range secrets.Items {
		count("Secret", s.Labels)
	}
	for _, m := range maps.Items {
		count("ConfigMap", m.Labels)
	}
	return counts
}
