// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Command node runs a Kubernetes cluster with real nodes on one Linux machine, as
// root, from the binaries of build.sh and a few Debian packages, without a registry,
// without downloads at run time, and without a trace afterwards.
//
//	node up       start what does not run, wait until it is ready, print the kubeconfig
//	node status   say what runs, and what it needs
//	node restart  end one node as a power cut would, and start it again
//	node down     end everything and remove everything
//
// A node is one process tree in namespaces of its own:
//
//	┌ node-1: pid, mount, network, uts, ipc ──────────────────┐   ┌ node-2 ───────────────┐
//	│ init (this program, process 1)                          │   │ init                  │
//	│ ├ etcd, kube-apiserver, controller manager, scheduler   │   │ ├ containerd ─ pods   │
//	│ ├ containerd ─ pods 10.244.1.0/24                       │   │ ├ kubelet             │
//	│ └ kubelet, kube-proxy        lan 198.51.100.1 ──────────┼veth─▶ └ kube-proxy   .2    │
//	└───▲─────────────────────────────────────────────────────┘   └───────────────────────┘
//	    │ a listening socket, inherited: 127.0.0.1:PORT of the machine ─▶ kube-apiserver
//
// The namespaces are what makes an end certain: when process 1 is killed the kernel
// kills every process of the node, and with them go its mounts, addresses, routes and
// packet filter rules, which the machine never saw. What is left are the node's cgroup
// and one folder, and `down` removes both.
//
// Here are the life of nodes and the network between them. Images come from
// hack/image, objects are applied by package cluster.
package main
