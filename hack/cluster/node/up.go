// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tokenward/tokenward/hack/cluster"
)

// readyTimeout is how long a cold start may take on a slow and busy machine.
const readyTimeout = 4 * time.Minute

func (o options) kubeconfig() string { return filepath.Join(o.dir, "kubeconfig") }

// up starts what does not run, and returns when the cluster can be used.
func up(ctx context.Context, o options, out io.Writer) error {
	began := time.Now()
	if err := prepare(ctx, o, out); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o711); err != nil {
		return err
	}
	if err := ensurePKI(filepath.Join(o.dir, "pki"), o.nodes); err != nil {
		return fmt.Errorf("make the certificates: %w", err)
	}
	first, err := startFirst(ctx, o, out)
	if err != nil {
		return err
	}
	if err := waitFor(ctx, first, apiAnswers(o)); err != nil {
		return err
	}
	if err := startOthers(ctx, o, out); err != nil {
		return err
	}
	if err := applyAddons(ctx, o); err != nil {
		return err
	}
	if err := waitFor(ctx, first, allReady(o)); err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster: %d nodes are ready after %.0f s\n\n    export KUBECONFIG=%s\n    %s get nodes\n\n",
		o.nodes, time.Since(began).Seconds(), o.kubeconfig(), filepath.Join(o.binaries, "kubectl"))
	return nil
}

// startFirst starts node-1, if it does not run; the others end before, because their
// cables ended with it. It returns nil when it runs already.
func startFirst(ctx context.Context, o options, out io.Writer) (*started, error) {
	if o.machine(1).pid() != 0 {
		return nil, nil //nolint:nilnil // nothing was started
	}
	for _, m := range o.machines() {
		if err := m.kill(ctx); err != nil {
			return nil, err
		}
	}
	listener, err := listenAgain(ctx, o)
	if err != nil {
		return nil, err
	}
	defer listener.Close() //nolint:errcheck // the node has its own
	fmt.Fprintln(out, "cluster: starting node-1 with the control plane")
	return o.machine(1).start(ctx, listener)
}

// startOthers starts the nodes that do not run.
func startOthers(ctx context.Context, o options, out io.Writer) error {
	for _, m := range o.machines()[1:] {
		if m.pid() != 0 {
			continue
		}
		if err := m.kill(ctx); err != nil { // what a crash left
			return err
		}
		fmt.Fprintf(out, "cluster: starting %s\n", m.Name())
		s, err := m.start(ctx, nil)
		if err != nil {
			return err
		}
		running := func(context.Context) error {
			if m.pid() == 0 {
				return fmt.Errorf("%s does not run", m.Name())
			}
			return nil
		}
		if err := waitFor(ctx, s, running); err != nil {
			return err
		}
		if err := m.join(ctx); err != nil {
			return err
		}
	}
	return nil
}

// listenAgain listens on the port of the last time, so that kubeconfigs stay right, or
// on another when it is taken, and writes the administrator's kubeconfig.
func listenAgain(ctx context.Context, o options) (*os.File, error) {
	address := "127.0.0.1:0"
	if last, err := clientcmd.LoadFromFile(o.kubeconfig()); err == nil {
		for _, c := range last.Clusters {
			address = strings.TrimPrefix(c.Server, "https://")
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, err
	}
	defer listener.Close() //nolint:errcheck // the file below is the same socket
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	ca := &authority{dir: filepath.Join(o.dir, "pki")}
	return file, ca.kubeconfig("admin", "https://"+listener.Addr().String(), o.kubeconfig())
}

// waitFor waits until ask says nil, and not longer than the node lives.
func waitFor(ctx context.Context, s *started, ask func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if s != nil {
		go func() {
			select {
			case <-s.ended:
				cancel(s.err())
			case <-ctx.Done():
			}
		}()
	}
	err := until(ctx, readyTimeout, ask)
	if err != nil && context.Cause(ctx) != nil {
		return context.Cause(ctx)
	}
	return err
}

// config is the administrator's access.
func (o options) config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig())
	if err != nil {
		return nil, err
	}
	config.QPS, config.Timeout = -1, 10*time.Second
	return config, nil
}

func (o options) client() (kubernetes.Interface, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

func apiAnswers(o options) func(context.Context) error {
	return func(ctx context.Context) error {
		kube, err := o.client()
		if err != nil {
			return err
		}
		_, err = kube.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	}
}

// applyAddons applies CoreDNS, and what the enforcer of NetworkPolicies may read.
func applyAddons(ctx context.Context, o options) error {
	config, err := o.config()
	if err != nil {
		return err
	}
	connected, err := cluster.Connect(config)
	if err != nil {
		return err
	}
	for _, name := range []string{"policies.yaml", "dns.yaml"} {
		manifest, err := render(name, struct {
			node
			Enforcer string
		}{node{Number: 1}, enforcer})
		if err != nil {
			return err
		}
		if err := connected.Apply(ctx, manifest, "tokenward-cluster"); err != nil {
			return err
		}
	}
	return nil
}
