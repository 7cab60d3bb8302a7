// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Connect returns a cluster that runs already and that somebody else ends: one with
// nodes, for example. Objects can be applied to it; it has no routes of ours.
func Connect(config *rest.Config) (*Cluster, error) {
	c := &Cluster{config: rest.CopyConfig(config)}
	c.config.QPS = -1 // the administrator of a cluster of one machine needs no limit
	var err error
	if c.kube, err = kubernetes.NewForConfig(c.config); err != nil {
		return nil, err
	}
	c.client, err = client.New(c.config, client.Options{})
	return c, err
}
