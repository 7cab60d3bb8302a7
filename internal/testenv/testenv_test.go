// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package testenv_test

import (
	"testing"

	"k8s.io/client-go/discovery"

	"github.com/tokenward/tokenward/internal/testenv"
)

func TestStart(t *testing.T) {
	env := testenv.Start(t, testenv.Options{})
	kinds, err := discovery.NewDiscoveryClientForConfigOrDie(env.Config).ServerResourcesForGroupVersion("tokenward.io/v1alpha1")
	if err != nil {
		t.Fatal(err)
	}
	if len(kinds.APIResources) != 4 { // two kinds, each with a status
		t.Errorf("resources of tokenward.io/v1alpha1: %v", kinds.APIResources)
	}
}
