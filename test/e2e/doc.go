// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package e2e has no code: its tests install dist/install.yaml on a cluster with real
// nodes and use it as its users do, through Services and from other pods. They are
// built with the tag e2e, because they need such a cluster: the one that KUBECONFIG
// names, or else that of `make cluster-up`. `make e2e` does all of it.
//
// The images must be where the cluster's nodes find them: those of `make images` are,
// on the nodes of `make cluster-up`.
package e2e
