// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"slices"
)

// component is a program of a node.
type component struct {
	name string
	args []string
	// after is the address that must accept connections before the start: it saves
	// the program from ending and being started again.
	after string
}

func (c component) program() string {
	switch c.name {
	case "containerd":
		return c.name // Debian's, by PATH
	case enforcer:
		return "/proc/self/exe"
	default:
		return filepath.Join(insideBinaries, c.name)
	}
}

// enforcer is the program that makes the node enforce NetworkPolicies: this one. The API
// server knows it by this name, too.
const enforcer = "network-policies"

// components are the programs of n in the order of their start.
func (n node) components() []component {
	var all []component
	if n.first() {
		all = n.controlPlane()
	}
	api := node{Number: 1}.Address4() + ":" + apiPort
	return append(
		all,
		component{name: "containerd", args: []string{"--config=" + filepath.Join(n.State, "containerd.toml")}},
		component{name: "kubelet", after: containerdSocket, args: []string{
			"--config=" + filepath.Join(n.State, "kubelet.yaml"),
			"--kubeconfig=" + filepath.Join(n.PKI(), n.Name()+".kubeconfig"),
			"--hostname-override=" + n.Name(),
			"--node-ip=" + n.Address4() + "," + n.Address6(),
		}},
		component{name: "kube-proxy", after: api, args: []string{"--config=" + filepath.Join(n.State, "kube-proxy.yaml")}},
		component{name: enforcer, after: api, args: []string{enforcer, fmt.Sprintf("-number=%d", n.Number), fmt.Sprintf("-nodes=%d", n.Number)}},
	)
}

func (n node) controlPlane() []component {
	pki := func(name string) string { return filepath.Join(n.PKI(), name) }
	const etcd = "127.0.0.1:2379"
	api := n.Address4() + ":" + apiPort
	client := func(name string) []string {
		return []string{"--kubeconfig=" + pki(name+".kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1"}
	}
	return []component{
		// Plain HTTP, and no fsync: the loopback interface and the data are this node's alone.
		{name: "etcd", args: []string{
			"--data-dir=" + filepath.Join(n.State, "etcd"), "--unsafe-no-fsync",
			"--listen-client-urls=http://" + etcd, "--advertise-client-urls=http://" + etcd,
			"--listen-peer-urls=http://127.0.0.1:2380",
		}},
		{name: "kube-apiserver", after: etcd, args: []string{
			"--etcd-servers=http://" + etcd,
			"--advertise-address=" + n.Address4(), "--secure-port=" + apiPort,
			"--service-cluster-ip-range=" + servicesCIDR,
			"--client-ca-file=" + pki("ca.crt"),
			"--tls-cert-file=" + pki("kube-apiserver.crt"), "--tls-private-key-file=" + pki("kube-apiserver.key"),
			"--kubelet-client-certificate=" + pki("kubelet-client.crt"), "--kubelet-client-key=" + pki("kubelet-client.key"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + pki("service-accounts.key"),
			"--service-account-signing-key-file=" + pki("service-accounts.key"),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--kubelet-preferred-address-types=InternalIP",
			"--allow-privileged=true",
		}},
		{name: "kube-controller-manager", after: api, args: slices.Concat(client("kube-controller-manager"), []string{
			"--use-service-account-credentials",
			"--service-account-private-key-file=" + pki("service-accounts.key"),
			"--root-ca-file=" + pki("ca.crt"),
			"--cluster-cidr=" + podsCIDR, "--service-cluster-ip-range=" + servicesCIDR,
		})},
		{name: "kube-scheduler", after: api, args: client("kube-scheduler")},
	}
}
