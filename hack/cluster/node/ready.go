// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// allReady is nil when every node runs pods and leads to Services, and DNS answers. It
// asks the programs themselves, because after the end of a node the API server goes on
// for a while to say what was true before.
func allReady(o options) func(context.Context) error {
	return func(ctx context.Context) error {
		kube, err := o.client()
		if err != nil {
			return err
		}
		for _, m := range o.machines() {
			if err := m.ready(ctx, kube); err != nil {
				return err
			}
		}
		return dnsReady(ctx, kube)
	}
}

func (m machine) ready(ctx context.Context, kube kubernetes.Interface) error {
	found, err := kube.CoreV1().Nodes().Get(ctx, m.Name(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	// Process 1 writes it before it starts kubelet.
	started, err := os.Stat(filepath.Join(m.State, "kubelet.yaml"))
	if err != nil {
		return err
	}
	if err := nodeReady(found, started.ModTime()); err != nil {
		return err
	}
	_, err = kube.CoreV1().RESTClient().Get().Resource("nodes").Name(m.Name() + ":10256").SubResource("proxy").Suffix("healthz").DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("kube-proxy of %s: %w", m.Name(), err)
	}
	return nil
}

// nodeReady is nil when kubelet has called the node ready after it was started.
func nodeReady(n *corev1.Node, started time.Time) error {
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		switch {
		case c.LastHeartbeatTime.Time.Before(started.Truncate(time.Second)):
			return fmt.Errorf("kubelet of %s has not said yet that it is ready", n.Name)
		case c.Status != corev1.ConditionTrue:
			return fmt.Errorf("%s is not ready: %s", n.Name, c.Message)
		default:
			return nil
		}
	}
	return fmt.Errorf("%s is not ready", n.Name)
}

func dnsReady(ctx context.Context, kube kubernetes.Interface) error {
	pods, err := kube.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=kube-dns"})
	if err != nil {
		return err
	}
	errs := []error{errors.New("DNS is not ready")}
	for _, p := range pods.Items {
		if !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			continue // its Service does not lead to it yet
		}
		_, err := kube.CoreV1().RESTClient().Get().Namespace(p.Namespace).Resource("pods").Name(p.Name + ":8181").SubResource("proxy").Suffix("ready").DoRaw(ctx)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
