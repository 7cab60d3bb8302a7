// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

const operatorNamespace = "tokenward-system"

//go:embed manifests/tenant.yaml
var tenantManifest []byte

// stage is where the story plays. The story does not know which one it is.
type stage interface {
	// install has Tokenward run.
	install(ctx context.Context, issuerFlags []string) (*platform, error)
	// workload has the annotated application run, for a policy that is ready.
	workload(ctx context.Context, p *platform) (*workload, error)
	// hasten has changed settings reach the pods now, and not when it is their time. It is
	// called again while they have not.
	hasten(ctx context.Context, again bool) error
	// leave ends and removes what the stage has made, whatever has become of ctx; when
	// the story has failed, with what helps to find out why.
	leave(ctx context.Context, failed bool) error
}

// newStage finds a stage by the name that the flag gives.
func newStage(name string, where paths, say func(string, ...any), out io.Writer) (stage, error) {
	switch name {
	case "local":
		return &local{paths: where, say: say}, nil
	case "cluster":
		return newNodes(where, say, out)
	}
	return nil, fmt.Errorf("-stage=%s: there is none of that name: use local or cluster", name)
}

// platform is a control plane with Tokenward running, as a team sees it.
type platform struct {
	client.Client
	// apply does what `kubectl apply` does with a manifest.
	apply func(ctx context.Context, manifest []byte) error
	// access are lines for a shell that lead kubectl here.
	access string
}

func newClient(config *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return client.New(config, client.Options{Scheme: scheme})
}

// workload is the application with the sidecar in front.
type workload struct {
	url      string // where clients reach it
	sidecars []sidecar
	// lifeline is what must not end while the workload is used.
	lifeline *process
}

// sidecar is one of those that url leads to.
type sidecar struct {
	url   string // this one and no other
	admin string
}

// paths are where things lie.
type paths struct {
	root string // of the repository
	dir  string // of this run
}

func (p paths) binary(name string) string { return filepath.Join(p.root, "bin", name) }
func (p paths) log(name string) string    { return filepath.Join(p.dir, name+".log") }

// prepareTenant applies what a team applies before its workload, and waits until it is ready.
func prepareTenant(ctx context.Context, p *platform, in backend, say func(string, ...any)) error {
	say("kubectl apply: namespace, SigningKey, TokenPolicy, users, grant")
	if err := p.apply(ctx, tenantManifest); err != nil {
		return err
	}
	if err := in.apply(ctx, p); err != nil {
		return err
	}
	if err := waitCondition(ctx, p, &api.SigningKey{ObjectMeta: shop}, func(k *api.SigningKey) []metav1.Condition { return k.Status.Conditions }); err != nil {
		return err
	}
	if err := waitCondition(ctx, p, &api.TokenPolicy{ObjectMeta: shop}, func(t *api.TokenPolicy) []metav1.Condition { return t.Status.Conditions }); err != nil {
		return err
	}
	say("SigningKey and TokenPolicy are Ready")
	return nil
}

// showSidecar shows what the webhook has put in front of the application.
func showSidecar(pod *corev1.Pod, say func(string, ...any)) (corev1.Container, error) {
	if len(pod.Spec.InitContainers) == 0 {
		return corev1.Container{}, fmt.Errorf("pod %s was admitted without the sidecar", pod.Name)
	}
	c := pod.Spec.InitContainers[0]
	text, err := yaml.Marshal(map[string]any{"name": c.Name, "args": c.Args, "ports": c.Ports, "restartPolicy": c.RestartPolicy})
	if err != nil {
		return c, err
	}
	say("the API server admitted it with this container in front:\n%s", indent(text))
	return c, nil
}

func indent(text []byte) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n    ")
}
