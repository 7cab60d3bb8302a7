// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/controllers/injection"
)

//go:embed manifests/deployment.yaml
var deploymentManifest []byte

// nodes is a stage with nodes: the cluster that KUBECONFIG names. It is left as it was
// found: the namespace of the demo is removed, and Tokenward too if it was not there.
type nodes struct {
	client.Client
	kubectl kubectl
	say     func(string, ...any)
	out     io.Writer

	namespaced, installed bool // by us
	forwards              []*process
	hastened              time.Time
}

func newNodes(where paths, say func(string, ...any), out io.Writer) (*nodes, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, fmt.Errorf("%w: run `make cluster-up`, or set KUBECONFIG to one file", err)
	}
	config.QPS = -1 // one person waits for each answer
	n := &nodes{kubectl: kubectl{paths: where}, say: say, out: out}
	n.Client, err = newClient(config)
	return n, err
}

func (n *nodes) install(ctx context.Context, _ []string) (*platform, error) {
	if err := n.look(ctx); err != nil {
		return nil, err
	}
	manager := client.ObjectKey{Namespace: operatorNamespace, Name: "tokenward-manager"}
	switch err := n.Get(ctx, manager, &appsv1.Deployment{}); {
	case err == nil:
		n.say("Tokenward is installed already: it is used as it is")
	case !apierrors.IsNotFound(err):
		return nil, err
	default:
		n.say("kubectl apply --server-side -f dist/install.yaml")
		n.installed = true
		if err := n.kubectl.run(ctx, nil, "apply", "--server-side", "-f", n.manifest()); err != nil {
			return nil, err
		}
		n.say("waiting for the pods of manager and issuer")
	}
	for _, name := range []string{"tokenward-manager", "tokenward-issuer"} {
		if err := n.rolledOut(ctx, operatorNamespace, name); err != nil {
			return nil, err
		}
	}
	n.namespaced = true // from here on
	return &platform{
		Client: n.Client,
		access: "export KUBECONFIG=" + os.Getenv("KUBECONFIG") + "\n    export PATH=" + filepath.Dir(n.kubectl.binary()) + ":$PATH",
		apply: func(ctx context.Context, manifest []byte) error {
			return n.kubectl.run(ctx, manifest, "apply", "--server-side", "-f", "-")
		},
	}, nil
}

func (n *nodes) manifest() string { return filepath.Join(n.kubectl.paths.root, "dist", "install.yaml") }

// look says what cluster it is, and that nothing there is in the way.
func (n *nodes) look(ctx context.Context) error {
	list := &corev1.NodeList{}
	if err := n.List(ctx, list); err != nil {
		return err
	}
	var names []string
	for _, node := range list.Items {
		names = append(names, node.Name+" (Kubernetes "+node.Status.NodeInfo.KubeletVersion+")")
	}
	n.say("a cluster with the nodes %s", strings.Join(names, ", "))
	err := n.Get(ctx, client.ObjectKey{Name: shop.Namespace}, &corev1.Namespace{})
	if err == nil {
		return fmt.Errorf("the cluster has a namespace %q, and the demo makes and removes one of that name.\n"+
			"Is another demo running (make demo-cluster KEEP=1)? End it with Ctrl-C. Or remove it:\n"+
			"    KUBECONFIG=%s %s delete namespace %[1]s", shop.Namespace, os.Getenv("KUBECONFIG"), n.kubectl.binary())
	}
	return client.IgnoreNotFound(err)
}

func (n *nodes) rolledOut(ctx context.Context, namespace, name string) error {
	return n.kubectl.run(ctx, nil, "-n", namespace, "rollout", "status", "deployment/"+name, "--timeout=180s")
}

func (n *nodes) workload(ctx context.Context, p *platform) (*workload, error) {
	n.say("kubectl apply: a Deployment with one annotation, a Service, and a client in another pod")
	if err := p.apply(ctx, deploymentManifest); err != nil {
		return nil, err
	}
	for _, name := range []string{"shop", "client"} {
		if err := n.rolledOut(ctx, shop.Namespace, name); err != nil {
			return nil, err
		}
	}
	pods, err := n.shops(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := showSidecar(&pods[0], n.say); err != nil {
		return nil, err
	}
	client, urls, err := n.forward(ctx, "deployment/client", "8080")
	if err != nil {
		return nil, err
	}
	w := &workload{url: urls[0], lifeline: client}
	var where []string
	for _, pod := range pods {
		where = append(where, pod.Name+" on "+pod.Spec.NodeName)
		forward, urls, err := n.forward(ctx, "pod/"+pod.Name, strconv.Itoa(injection.ListenPort), strconv.Itoa(injection.AdminPort))
		if err != nil {
			return nil, err
		}
		if err := forward.ready(ctx, urls[1]+"/readyz"); err != nil {
			return nil, err
		}
		w.sidecars = append(w.sidecars, sidecar{url: urls[0], admin: urls[1]})
	}
	if err := client.ready(ctx, w.url+"/healthz"); err != nil {
		return nil, err
	}
	n.say("ready: %s;\n    %s leads to a pod that sends what it gets to http://shop.shop.svc", strings.Join(where, ", "), w.url)
	return w, nil
}

func (n *nodes) shops(ctx context.Context) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := n.List(ctx, list, client.InNamespace(shop.Namespace), client.MatchingLabels{"app": "shop"}); err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, errors.New("the Deployment has no pods")
	}
	return list.Items, nil
}

func (n *nodes) forward(ctx context.Context, to string, ports ...string) (*process, []string, error) {
	running, urls, err := n.kubectl.forward(ctx, to, ports...)
	if err == nil {
		n.forwards = append(n.forwards, running)
	}
	return running, urls, err
}

// hasten changes the pods, upon which kubelets look after their volumes; without it they
// do so once a minute.
func (n *nodes) hasten(ctx context.Context, again bool) error {
	if again && time.Since(n.hastened) < time.Second {
		return nil
	}
	if !again {
		_, _ = fmt.Fprintln(n.out, "    $ kubectl -n shop annotate pods -l app=shop look=\"$(date)\" --overwrite  # else: in a minute")
	}
	n.hastened = time.Now()
	pods, err := n.shops(ctx)
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"look":%q}}}`, n.hastened.Format(time.RFC3339Nano))
	for _, pod := range pods {
		if err := n.Patch(ctx, &pod, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			return err
		}
	}
	return nil
}

func (n *nodes) leave(ctx context.Context, failed bool) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	for _, forward := range n.forwards {
		<-forward.ended
	}
	if failed && n.namespaced {
		n.kubectl.explain(ctx)
	}
	var errs []error
	if n.namespaced {
		n.say("kubectl delete namespace %s", shop.Namespace)
		errs = append(errs, n.kubectl.run(ctx, nil, "delete", "namespace", shop.Namespace, "--ignore-not-found"))
	}
	if n.installed {
		// In the order of docs/operations.md: nothing may wait for what is gone.
		n.say("kubectl delete -f dist/install.yaml")
		errs = append(errs,
			n.kubectl.run(ctx, nil, "delete", "mutatingwebhookconfiguration", "tokenward-injector", "--ignore-not-found"),
			n.kubectl.run(ctx, nil, "delete", "--ignore-not-found", "-f", n.manifest()))
	}
	return errors.Join(errs...)
}
