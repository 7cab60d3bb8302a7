// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
)

// Where a node finds what it needs, in its own mount namespace.
const (
	insideBinaries = "/run/cluster/bin"
	insideImages   = "/run/cluster/images"
	insideState    = "/run/cluster/state"
	insideSettings = "/run/cluster/sysctl"

	containerdSocket = "/run/containerd/containerd.sock"
	registryAddress  = "127.0.0.1:5000"
	cniPlugins       = "/usr/lib/cni"
)

// The addresses of the cluster. Nobody outside sees them: those of nodes are for
// documentation (RFC 5737), the others are private (RFC 1918, RFC 4193).
const (
	servicesCIDR = "10.96.0.0/16,fd98:96::/112"
	podsCIDR     = "10.244.0.0/16,fd98:244::/32"
	dnsAddress   = "10.96.0.10"
	apiPort      = "6443"
)

// node is one node, the first of which has the control plane as well.
type node struct {
	Number int
	// State is the node's own folder as the reader of this field sees it.
	State string
	// Cgroup is the node's own, below the topmost one.
	Cgroup string
}

func (n node) Name() string     { return fmt.Sprintf("node-%d", n.Number) }
func (n node) Address4() string { return fmt.Sprintf("198.51.100.%d", n.Number) }
func (n node) Address6() string { return fmt.Sprintf("fd98:51::%d", n.Number) }
func (n node) PodCIDR4() string { return fmt.Sprintf("10.244.%d.0/24", n.Number) }
func (n node) PodCIDR6() string { return fmt.Sprintf("fd98:244:%d::/64", n.Number) }
func (n node) first() bool      { return n.Number == 1 }

// apiServer is where nodes reach the API server.
func apiServer() string { return "https://" + node{Number: 1}.Address4() + ":" + apiPort }

// The names in the templates of config/ that are the same on every node.
func (n node) PKI() string              { return filepath.Join(insideState, "pki") }
func (n node) DNS() string              { return dnsAddress }
func (n node) ClusterCIDR() string      { return podsCIDR }
func (n node) ContainerdSocket() string { return containerdSocket }
func (n node) Registry() string         { return registryAddress }
func (n node) CNI() string              { return cniPlugins }
func (n node) CgroupRoot() string       { return "/" + n.Cgroup }
