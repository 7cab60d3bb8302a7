// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessionkeys_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/controllers/sessionkeys"
)

var cluster *controllertest.Cluster

func TestMain(m *testing.M) {
	os.Exit(controllertest.Run(m, &cluster, "controllers/sessionkeys"))
}

func setup(mgr ctrl.Manager) error {
	return sessionkeys.SetupWithManager(mgr, sessionkeys.Options{Namespace: controllertest.Namespace})
}

func keys(ctx context.Context) (*corev1.Secret, error) {
	found := &corev1.Secret{}
	err := cluster.Admin.Get(ctx, types.NamespacedName{Namespace: controllertest.Namespace, Name: sessionkeys.SecretName}, found)
	return found, err
}

func TestKeyIsMadeOnceAndNeverChanged(t *testing.T) {
	first, _ := cluster.Manager(t, setup)
	second, _ := cluster.Manager(t, setup)
	var made *corev1.Secret
	controllertest.Eventually(t, "there is a key", func(ctx context.Context) (err error) {
		made, err = keys(ctx)
		return err
	})
	id := string(made.Data[sessionkeys.CurrentKey])
	if len(made.Data) != 2 || len(made.Data[sessionkeys.KeyPrefix+id]) != sessionkeys.KeySize || made.Labels[api.ComponentLabel] != "sessions" {
		t.Fatalf("current is %q; keys %v; labels %v", id, maps.Keys(made.Data), made.Labels)
	}
	// An administrator adds a key; nobody takes it away again.
	made.Data[sessionkeys.KeyPrefix+"mine"] = make([]byte, sessionkeys.KeySize)
	made.Data[sessionkeys.CurrentKey] = []byte("mine")
	if err := cluster.Admin.Update(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	first.Quiet(t, 300*time.Millisecond)
	second.Quiet(t, 300*time.Millisecond)
	after, err := keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(after.Data, made.Data) || after.ResourceVersion != made.ResourceVersion {
		t.Error("the Secret was changed")
	}
	// A lost Secret is lost; new sessions need a new one.
	if err := cluster.Admin.Delete(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "there is a new key", func(ctx context.Context) error {
		again, err := keys(ctx)
		if err == nil && string(again.Data[sessionkeys.CurrentKey]) == id {
			return errors.New("the old id names a new key")
		}
		return err
	})
}
