// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tokenward/tokenward/hack/cluster/policies"
)

// enforcePolicies is the program of each node that enforces NetworkPolicies. It runs in
// the namespaces of the node.
func enforcePolicies(ctx context.Context, n node) error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(n.PKI(), enforcer+".kubeconfig"))
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return policies.Run(ctx, n.Name(), kube, os.Stdout)
}
