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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/hack/cluster"
)

// local is a stage of processes on this machine: etcd and kube-apiserver, manager and
// issuer, and the sidecar of an admitted pod.
type local struct {
	paths paths
	say   func(string, ...any)

	control   *cluster.Cluster
	processes []*process
}

// hasten has nothing to do: files are written here as soon as they change.
func (*local) hasten(context.Context, bool) error { return nil }

// leave waits for the end of the processes, which ends with the context that they were
// started with, and says which ended too early.
func (l *local) leave(context.Context, bool) error {
	var errs []error
	for _, process := range l.processes {
		errs = append(errs, process.wait())
	}
	if l.control != nil {
		errs = append(errs, l.control.Stop())
	}
	return errors.Join(errs...)
}

// install starts the control plane, applies dist/install.yaml as it is, and runs manager
// and issuer as processes, each with the arguments of its Deployment and with the
// permissions of its ServiceAccount only.
func (l *local) install(ctx context.Context, issuerFlags []string) (*platform, error) {
	if err := checkPorts(ctx); err != nil {
		return nil, err
	}
	l.say("starting etcd and kube-apiserver")
	var err error
	if l.control, err = cluster.Start(ctx, cluster.Options{Dir: filepath.Join(l.paths.dir, "cluster"), Assets: assets(l.paths)}); err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(l.paths.dir, "admin.kubeconfig")
	if err := l.control.Kubeconfig(kubeconfig); err != nil {
		return nil, err
	}
	p := &platform{
		access: "export KUBECONFIG=" + kubeconfig,
		apply:  func(ctx context.Context, manifest []byte) error { return l.control.Apply(ctx, manifest, "team") },
	}
	if p.Client, err = newClient(l.control.Config()); err != nil {
		return nil, err
	}
	return p, l.startOperator(ctx, p, issuerFlags)
}

func (l *local) startOperator(ctx context.Context, p *platform, issuerFlags []string) error {
	l.say("kubectl apply --server-side -f dist/install.yaml")
	manifest, err := os.ReadFile(filepath.Join(l.paths.root, "dist", "install.yaml"))
	if err != nil {
		return err
	}
	if err := l.control.Apply(ctx, manifest, "demo"); err != nil {
		return fmt.Errorf("apply dist/install.yaml: %w", err)
	}

	ports, err := freePorts(ctx, 6)
	if err != nil {
		return err
	}
	local := func(i int) string { return net.JoinHostPort("127.0.0.1", ports[i]) }
	// There is no cluster network here: the API server's calls to a Service are led
	// to these addresses, and sidecars find the issuer at its own.
	l.control.Route(operatorNamespace, "tokenward-webhook", 443, local(0))
	l.control.Route(operatorNamespace, "tokenward-issuer", 443, local(1))

	l.say("starting manager and issuer, each as its own ServiceAccount")
	manager, err := l.run(ctx, p, "tokenward-manager", []string{
		"--webhook-port=" + ports[0], "--issuer-url=https://" + local(1),
		"--metrics-bind-address=" + local(2), "--health-probe-bind-address=" + local(3),
	})
	if err != nil {
		return err
	}
	issuer, err := l.run(ctx, p, "tokenward-issuer", append(issuerFlags,
		"--listen="+local(1), "--metrics-bind-address="+local(4), "--health-probe-bind-address="+local(5),
	))
	if err != nil {
		return err
	}
	if err := manager.ready(ctx, "http://"+local(3)+"/readyz"); err != nil {
		return err
	}
	return issuer.ready(ctx, "http://"+local(5)+"/readyz")
}

// run starts the container of a Deployment as a process. Overrides come after the
// Deployment's own arguments: addresses, because all run on one host here.
func (l *local) run(ctx context.Context, p *platform, name string, overrides []string) (*process, error) {
	deployment := &appsv1.Deployment{}
	if err := p.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: name}, deployment); err != nil {
		return nil, err
	}
	spec := deployment.Spec.Template.Spec
	kubeconfig := filepath.Join(l.paths.dir, name+".kubeconfig")
	if err := l.control.ServiceAccountKubeconfig(ctx, operatorNamespace, spec.ServiceAccountName, kubeconfig); err != nil {
		return nil, err
	}
	log, err := os.Create(l.paths.log(name))
	if err != nil {
		return nil, err
	}
	defer log.Close()                                                                                                  //nolint:errcheck // the process has its own
	command := exec.CommandContext(ctx, l.paths.binary("tokenward"), append(spec.Containers[0].Args, overrides...)...) //nolint:gosec // our own binary
	command.Env = append(environment(spec.Containers[0]), "KUBECONFIG="+kubeconfig, "HOME="+l.paths.dir)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = attributes()
	started, err := start(ctx, name, l.paths.log(name), command)
	if err == nil {
		l.processes = append(l.processes, started)
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
