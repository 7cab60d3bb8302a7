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
	"sync"
	"syscall"
	"time"

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
	processes sync.WaitGroup
}

// adminKubeconfig writes a kubeconfig for the person at the keyboard.
func (p *platform) adminKubeconfig() (string, error) {
	path := filepath.Join(p.paths.dir, "admin.kubeconfig")
	return path, p.control.Kubeconfig(path)
}

// wait waits for manager and issuer to end.
func (p *platform) wait() { p.processes.Wait() }

// paths are where things lie.
type paths struct {
	root string // of the repository
	dir  string // of this run
}

func (p paths) binary(name string) string { return filepath.Join(p.root, "bin", name) }
func (p paths) log(name string) string    { return filepath.Join(p.dir, name+".log") }

// startPlatform starts the control plane, applies dist/install.yaml as it is, and
// runs manager and issuer as processes, each with the arguments of its Deployment
// and with the permissions of its ServiceAccount only.
func startPlatform(ctx context.Context, where paths, say func(string, ...any)) (*platform, error) {
	say("starting etcd and kube-apiserver")
	control, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(where.dir, "cluster"), Assets: assets(where)})
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	c, err := client.New(control.Config(), client.Options{Scheme: scheme})
	if err != nil {
		return nil, errors.Join(err, control.Stop())
	}
	p := &platform{control: control, Client: c, paths: where}

	say("kubectl apply --server-side -f dist/install.yaml")
	manifest, err := os.ReadFile(filepath.Join(where.root, "dist", "install.yaml"))
	if err != nil {
		return p, err
	}
	if err := p.control.Apply(ctx, manifest, "demo"); err != nil {
		return p, fmt.Errorf("apply dist/install.yaml: %w", err)
	}

	ports, err := freePorts(ctx, 7)
	if err != nil {
		return p, err
	}
	local := func(i int) string { return net.JoinHostPort("127.0.0.1", ports[i]) }
	// There is no cluster network here: the API server's calls to a Service are led
	// to these addresses, and sidecars find the issuer at its own.
	p.control.Route(operatorNamespace, "tokenward-webhook", 443, local(0))
	p.control.Route(operatorNamespace, "tokenward-issuer", 443, local(1))

	say("starting manager and issuer, each as its own ServiceAccount")
	err = p.run(ctx, where, "tokenward-manager", []string{
		"--webhook-port=" + ports[0], "--issuer-url=https://" + local(1),
		"--metrics-bind-address=" + local(2), "--health-probe-bind-address=" + local(3),
	}, say)
	if err != nil {
		return p, err
	}
	err = p.run(ctx, where, "tokenward-issuer", []string{
		"--listen=" + local(1), "--metrics-bind-address=" + local(4), "--health-probe-bind-address=" + local(5),
	}, say)
	if err != nil {
		return p, err
	}
	for name, i := range map[string]int{"tokenward-manager": 3, "tokenward-issuer": 5} {
		if err := waitReady(ctx, "http://"+local(i)+"/readyz"); err != nil {
			return p, fmt.Errorf("%s is not ready, see %s: %w", name, where.log(name), err)
		}
	}
	return p, nil
}

// run starts the container of a Deployment as a process. Overrides come after the
// Deployment's own arguments: addresses, because all run on one host here.
func (p *platform) run(ctx context.Context, where paths, name string, overrides []string, say func(string, ...any)) error {
	deployment := &appsv1.Deployment{}
	if err := p.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: name}, deployment); err != nil {
		return err
	}
	spec := deployment.Spec.Template.Spec
	kubeconfig := filepath.Join(where.dir, name+".kubeconfig")
	if err := p.control.ServiceAccountKubeconfig(ctx, operatorNamespace, spec.ServiceAccountName, kubeconfig); err != nil {
		return err
	}
	log, err := os.Create(where.log(name))
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, where.binary("tokenward"), append(spec.Containers[0].Args, overrides...)...) //nolint:gosec // our own binary
	command.Env = append(environment(spec.Containers[0]), "KUBECONFIG="+kubeconfig)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the demo alone, which ends the others in order
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 20 * time.Second
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	p.processes.Go(func() {
		if err := command.Wait(); err != nil && ctx.Err() == nil {
			say("%s ended: %v (see %s)", name, err, where.log(name))
		}
	})
	return nil
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

// freePorts finds n free ports of the loopback address.
func freePorts(ctx context.Context, n int) ([]string, error) {
	ports := make([]string, 0, n)
	var listeners []net.Listener // closed at the end, so that no number is given twice
	defer func() {
		for _, listener := range listeners {
			_ = listener.Close()
		}
	}()
	for range n {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, listener)
		_, port, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
