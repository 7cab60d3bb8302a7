// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

//go:embed manifests/tenant.yaml
var tenantManifest []byte

//go:embed manifests/pod.yaml
var podManifest []byte

// user is somebody who may log in.
type user struct {
	ID, Phone, Password, Role string
}

var (
	alice = user{ID: "alice", Phone: "+82-10-1234-5678", Password: "correct horse battery staple", Role: "admin"}
	bob   = user{ID: "bob", Phone: "+82-10-8765-4321", Password: "a quite different sentence", Role: "reader"}
)

// workload is the admitted pod: its sidecar runs, and the application behind it.
type workload struct {
	url     string // where clients reach it
	admin   string // the sidecar's admin port
	sidecar *process
}

// startWorkload applies what a team applies, has the pod admitted, and runs it.
func startWorkload(ctx context.Context, p *platform, in backend, where paths, say func(string, ...any)) (*workload, error) {
	say("kubectl apply: namespace, SigningKey, TokenPolicy, users, grant")
	if err := p.control.Apply(ctx, tenantManifest, "team"); err != nil {
		return nil, err
	}
	if err := in.apply(ctx, p); err != nil {
		return nil, err
	}
	if err := waitCondition(ctx, p, &api.SigningKey{ObjectMeta: shop}, func(k *api.SigningKey) []metav1.Condition { return k.Status.Conditions }); err != nil {
		return nil, err
	}
	if err := waitCondition(ctx, p, &api.TokenPolicy{ObjectMeta: shop}, func(t *api.TokenPolicy) []metav1.Condition { return t.Status.Conditions }); err != nil {
		return nil, err
	}
	say("SigningKey and TokenPolicy are Ready")

	say("kubectl apply: the Pod, with one annotation")
	if err := p.control.Apply(ctx, podManifest, "team"); err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	if err := p.Get(ctx, client.ObjectKey{Namespace: shop.Namespace, Name: shop.Name}, pod); err != nil {
		return nil, err
	}
	if len(pod.Spec.InitContainers) == 0 {
		return nil, fmt.Errorf("the admitted pod has no sidecar")
	}
	sidecar := pod.Spec.InitContainers[0]
	show, err := yaml.Marshal(map[string]any{"name": sidecar.Name, "args": sidecar.Args, "ports": sidecar.Ports, "restartPolicy": sidecar.RestartPolicy})
	if err != nil {
		return nil, err
	}
	say("the API server admitted it with this container in front:\n%s", indent(show))

	if err := startApp(ctx, net.JoinHostPort("127.0.0.1", fmt.Sprint(pod.Spec.Containers[0].Ports[0].ContainerPort))); err != nil {
		return nil, fmt.Errorf("start the application: %w", err)
	}
	log, err := os.Create(where.log("sidecar"))
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(p.control.Config())
	if err != nil {
		return nil, err
	}
	kubelet := &node{kube: kube, dir: where.dir, log: log, say: say}
	running, err := kubelet.container(ctx, pod, sidecar, where.binary("tokenward-sidecar"))
	if err != nil {
		return nil, err
	}
	w := &workload{
		url:     "http://127.0.0.1:" + fmt.Sprint(sidecar.Ports[0].ContainerPort),
		admin:   "http://127.0.0.1:" + fmt.Sprint(sidecar.Ports[1].ContainerPort),
		sidecar: running,
	}
	if err := running.ready(ctx, w.admin+sidecar.ReadinessProbe.HTTPGet.Path); err != nil {
		return w, err
	}
	say("the sidecar is ready on %s, the application behind it on port %d", w.url, pod.Spec.Containers[0].Ports[0].ContainerPort)
	return w, nil
}

func indent(text []byte) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n    ")
}
