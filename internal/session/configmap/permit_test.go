// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/internal/session"
)

// A policy is deleted while calls are under way: the manager removes the shards, and
// what comes late must not make one again, which nobody would ever remove.
func TestAPolicyThatIsGoneGetsNoShards(t *testing.T) {
	var gone atomic.Bool
	config := testConfig(t)
	config.Permit = func(context.Context) error {
		if gone.Load() {
			return fmt.Errorf("policy shop/shop: %w", ErrPolicyGone)
		}
		return nil
	}
	store := open(t, config)
	kept := createSession(t, store)

	gone.Store(true)
	err := config.Client.DeleteAllOf(t.Context(), &corev1.ConfigMap{}, client.InNamespace(testNamespace), store.selector())
	if err != nil {
		t.Fatal(err)
	}
	for range 8 { // over all shards
		err := store.Create(t.Context(), newSession(config.Policy, time.Now()))
		if !errors.Is(err, ErrPolicyGone) || errors.Is(err, session.ErrFull) {
			t.Errorf("a login: %v", err)
		}
	}
	if _, err := store.Swap(t.Context(), rotate(kept, time.Now())); err == nil {
		t.Error("a session of a shard that is gone was refreshed")
	}
	left := &corev1.ConfigMapList{}
	if err := config.Client.List(t.Context(), left, client.InNamespace(testNamespace), store.selector()); err != nil {
		t.Fatal(err)
	}
	if len(left.Items) > 0 {
		t.Errorf("%d shards were made again", len(left.Items))
	}
}

func TestAnUnansweredPermitIsAskedForAgain(t *testing.T) {
	var asked atomic.Int32
	config := testConfig(t)
	config.Shards = 1
	config.Permit = func(context.Context) error {
		if asked.Add(1) == 1 {
			return errors.New("the connection was cut")
		}
		return nil
	}
	createSession(t, open(t, config))
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
}
