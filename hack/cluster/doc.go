// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a real Kubernetes control plane, etcd and kube-apiserver
// alone, for the demo and for end-to-end tests on one machine.
//
// It differs from a test's envtest in what makes an installation true to life:
// the ServiceAccount and PodSecurity admission plugins are on, programs run with
// a token of their own ServiceAccount, and the API server reaches admission
// webhooks through their Service objects, from manifests that nobody edited:
//
//	kube-apiserver ──CONNECT 10.0.0.17:443──▶ egress proxy ──▶ 127.0.0.1:40123
//	               (ClusterIP of a Service)   (this process,    (what Route said
//	                                           unix socket)      about that Service)
//
// There is no controller manager, scheduler or kubelet: Deployments make no pods,
// and of the controllers' work only the default ServiceAccount of an applied
// Namespace is done here. Building the binaries is left to build.sh.
package cluster
