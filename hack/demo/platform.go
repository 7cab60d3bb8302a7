// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/hack/cluster"
)

const operatorNamespace = "tokenward-system"

// platform is a control plane with Tokenward installed and running.
type platform struct {
	control *cluster.Cluster
	client.Client
	paths     paths
	processes []*process
}

// wait waits until manager and issuer have ended, and says which ended too early.
func (p *platform) wait() error {
	var errs []error
	for _, process := range p.processes {
		errs = append(errs, process.wait())
	}
	return errors.Join(errs...)
}

// adminKubeconfig writes a kubeconfig for the person at the keyboard.
func (p *platform) adminKubeconfig() (string, error) {
	path := filepath.Join(p.paths.dir, "admin.kubeconfig")
	return path, p.control.Kubeconfig(path)
}

// paths are where things lie.
type paths struct {
	root string // of the repository
	dir  string // of this run
}

func (p paths) binary(name string) string { return filepath.Join(p.root, "bin", name) }
func (p paths) log(name string) string    { return filepath.Join(p.dir, name+".log") }

// startPlatform starts the control plane, applies dist/install.yaml as it is, and
// runs manager and issuer as processes, each with the arguments of its Deployment
// and with the permissions of its ServiceAccount only. What it returns beside an error
// is to be stopped as well.
func startPlatform(ctx context.Context, where paths, issuerFlags []string, say func(string, ...any)) (*platform, error) {
	say("starting etcd and kube-apiserver")
	control, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(where.dir, "cluster"), Assets: assets(where)})
	if err != nil {
		return nil, err
	}
	p := &platform{control: control, paths: where}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			return p, err
		}
	}
	if p.Client, err = client.New(control.Config(), client.Options{Scheme: scheme}); err != nil {
		return p, err
	}

	say("kubectl apply --server-side -f dist/install.yaml")
	manifest, err := os.ReadFile(filepath.Join(where.root, "dist", "install.yaml"))
	if err != nil {
		return p, err
	}
	if err := p.control.Apply(ctx, manifest, "demo"); err != nil {
		return p, fmt.Errorf("apply dist/install.yaml: %w", err)
	}

	ports, err := freePorts(ctx, 6)
	if err != nil {
		return p, err
	}
	local := func(i int) string { return net.JoinHostPort("127.0.0.1", ports[i]) }
	// There is no cluster network here: the API server's calls to a Service are led
	// to these addresses, and sidecars find the issuer at its own.
	p.control.Route(operatorNamespace, "tokenward-webhook", 443, local(0))
	p.control.Route(operatorNamespace, "tokenward-issuer", 443, local(1))

	say("starting manager and issuer, each as its own ServiceAccount")
	manager, err := p.run(ctx, where, "tokenward-manager", []string{
		"--webhook-port=" + ports[0], "--issuer-url=https://" + local(1),
		"--metrics-bind-address=" + local(2), "--health-probe-bind-address=" + local(3),
	})
	if err != nil {
		return p, err
	}
	issuer, err := p.run(ctx, where, "tokenward-issuer", append(issuerFlags,
		"--listen="+local(1), "--metrics-bind-address="+local(4), "--health-probe-bind-address="+local(5),
	))
	if err != nil {
		return p, err
	}
	if err := manager.ready(ctx, "http://"+local(3)+"/readyz"); err != nil {
		return p, err
	}
	return p, issuer.ready(ctx, "http://"+local(5)+"/readyz")
}

// run starts the container of a Deployment as a process. Overrides come after the
// Deployment's own arguments: addresses, because all run on one host here.
func (p *platform) run(ctx context.Context, where paths, name string, overrides []string) (*process, error) {
	deployment := &appsv1.Deployment{}
	if err := p.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: name}, deployment); err != nil {
		return nil, err
	}
	spec := deployment.Spec.Template.Spec
	kubeconfig := filepath.Join(where.dir, name+".kubeconfig")
	if err := p.control.ServiceAccountKubeconfig(ctx, operatorNamespace, spec.ServiceAccountName, kubeconfig); err != nil {
		return nil, err
	}
	log, err := os.Create(where.log(name))
	if err != nil {
		return nil, err
	}
	defer log.Close()                                                                                                //nolint:errcheck // the process has its own
	command := exec.CommandContext(ctx, where.binary("tokenward"), append(spec.Containers[0].Args, overrides...)...) //nolint:gosec // our own binary
	command.Env = append(environment(spec.Containers[0]), "KUBECONFIG="+kubeconfig, "HOME="+where.dir)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = attributes()
	started, err := start(ctx, name, where.log(name), command)
	if err == nil {
		p.processes = append(p.processes, started)
	}
	return started, err
}

// environment is the container's, with the fields of the pod that it asks for.
func environment(c corev1.Container) []string {
	var env []string
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			switch e.ValueFrom.FieldRef.FieldPath {
			case "metadata.namespace":
				value = operatorNamespace
			case "metadata.name":
				value = "demo"
			}
		}
		env = append(env, e.Name+"="+value)
	}
	return env
}

// assets is the folder with etcd and kube-apiserver.
func assets(where paths) string {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir
	}
	return filepath.Join(where.root, "bin", "k8s")
}
