// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	application "github.com/tokenward/tokenward/hack/demo/shop"
)

//go:embed manifests/pod.yaml
var podManifest []byte

// workload has the pod admitted, and runs what it would run on a node.
func (l *local) workload(ctx context.Context, p *platform) (*workload, error) {
	l.say("kubectl apply: the Pod, with one annotation")
	if err := p.apply(ctx, podManifest); err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := p.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: shop.Name}, pod); err != nil {
		return nil, err
	}
	container, err := showSidecar(pod, l.say)
	if err != nil {
		return nil, err
	}

	if err := startApp(ctx, net.JoinHostPort("127.0.0.1", fmt.Sprint(pod.Spec.Containers[0].Ports[0].ContainerPort))); err != nil {
		return nil, fmt.Errorf("start the application: %w", err)
	}
	log, err := os.Create(l.paths.log("sidecar"))
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(l.control.Config())
	if err != nil {
		return nil, err
	}
	kubelet := &node{kube: kube, dir: l.paths.dir, log: log, say: l.say}
	running, err := kubelet.container(ctx, pod, container, l.paths.binary("tokenward-sidecar"))
	if err != nil {
		return nil, err
	}
	l.processes = append(l.processes, running)
	url := "http://127.0.0.1:" + fmt.Sprint(container.Ports[0].ContainerPort)
	admin := "http://127.0.0.1:" + fmt.Sprint(container.Ports[1].ContainerPort)
	if err := running.ready(ctx, admin+container.ReadinessProbe.HTTPGet.Path); err != nil {
		return nil, err
	}
	l.say("the sidecar is ready on %s, the application behind it on port %d", url, pod.Spec.Containers[0].Ports[0].ContainerPort)
	return &workload{url: url, sidecars: []sidecar{{url: url, admin: admin}}, lifeline: running}, nil
}

// startApp serves the application on addr until ctx ends.
func startApp(ctx context.Context, addr string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(application.Answer)}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}
