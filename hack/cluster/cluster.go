// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Options say where the control plane lives.
type Options struct {
	// Dir holds data, certificates and logs. Its folders etcd and kube-apiserver are
	// made anew. Empty: a temporary folder that Stop removes.
	Dir string
	// Assets is the folder with the binaries etcd and kube-apiserver. Empty: the
	// environment variable KUBEBUILDER_ASSETS.
	Assets string
	// Log receives what etcd and kube-apiserver say. Nil: the files etcd.log and
	// kube-apiserver.log in Dir.
	Log io.Writer
}

// Cluster is a running control plane. Its methods may be called concurrently.
type Cluster struct {
	environment *envtest.Environment
	config      *rest.Config
	kube        kubernetes.Interface
	client      client.Client
	egress      *egress
	cleanup     []func() error // run by Stop, last one first
}

const startTimeout = 2 * time.Minute

// Start starts a control plane on free ports of the loopback interface. It returns
// when the API server answers. ctx bounds the start, not the life: the caller ends
// it with [Cluster.Stop].
func Start(ctx context.Context, options Options) (_ *Cluster, err error) {
	c := &Cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	assets, err := findAssets(options.Assets)
	if err != nil {
		return nil, err
	}
	dir, err := c.prepareDir(options.Dir)
	if err != nil {
		return nil, fmt.Errorf("prepare the folder of the control plane: %w", err)
	}
	if c.egress, err = startEgress(ctx); err != nil {
		return nil, err
	}
	c.onStop(c.egress.stop)
	egressConfig := filepath.Join(dir, "egress.json")
	if err := os.WriteFile(egressConfig, c.egress.configuration(), 0o600); err != nil {
		return nil, fmt.Errorf("write the egress configuration: %w", err)
	}

	c.environment = &envtest.Environment{ControlPlaneStartTimeout: startTimeout, ControlPlaneStopTimeout: time.Minute}
	plane := &c.environment.ControlPlane
	plane.Etcd = &envtest.Etcd{DataDir: filepath.Join(dir, "etcd")}
	api := plane.GetAPIServer()
	api.CertDir = filepath.Join(dir, "kube-apiserver")
	if plane.Etcd.Path, err = mortal(dir, filepath.Join(assets, "etcd")); err != nil {
		return nil, err
	}
	if api.Path, err = mortal(dir, filepath.Join(assets, "kube-apiserver")); err != nil {
		return nil, err
	}
	api.Configure().
		Disable("disable-admission-plugins"). // ServiceAccount stays on, as in every real cluster
		Set("authorization-mode", "RBAC").
		// Nobody goes there (RFC 5737). Without it a machine needs a default route.
		Set("advertise-address", "192.0.2.1").
		Set("egress-selector-config-file", egressConfig)
	if plane.Etcd.Out, err = c.logTo(options.Log, filepath.Join(dir, "etcd.log")); err != nil {
		return nil, err
	}
	if api.Out, err = c.logTo(options.Log, filepath.Join(dir, "kube-apiserver.log")); err != nil {
		return nil, err
	}
	plane.Etcd.Err, api.Err = plane.Etcd.Out, api.Out

	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.onStop(c.environment.Stop)
	if c.config, err = c.environment.Start(); err != nil {
		return nil, fmt.Errorf("start etcd and kube-apiserver, logs are in %s: %w", dir, err)
	}
	c.config.QPS = -1 // the administrator of a cluster of one machine needs no limit
	if c.kube, err = kubernetes.NewForConfig(c.config); err != nil {
		return nil, err
	}
	if c.client, err = client.New(c.config, client.Options{}); err != nil {
		return nil, err
	}
	c.egress.lookUpWith(c.kube)
	if err := c.ensureDefaultServiceAccount(ctx, "default"); err != nil {
		return nil, err
	}
	return c, nil
}

// Config returns a copy of the administrator's access, without a rate limit.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Route says that the API server reaches port of the Service at the address local
// ("127.0.0.1:40123"). The Service need not exist yet. A later Route for the same
// port replaces the earlier one; open connections stay. A cluster from [Connect] has
// a network of its own and no routes.
func (c *Cluster) Route(namespace, service string, port int, local string) {
	c.egress.route(target{namespace: namespace, service: service, port: port}, local)
}

// Stop ends kube-apiserver and etcd, in this order, and returns when both are gone.
// A second call does nothing.
func (c *Cluster) Stop() error {
	var errs []error
	for len(c.cleanup) > 0 {
		last := len(c.cleanup) - 1
		errs = append(errs, c.cleanup[last]())
		c.cleanup = c.cleanup[:last]
	}
	return errors.Join(errs...)
}

func (c *Cluster) onStop(f func() error) { c.cleanup = append(c.cleanup, f) }

func findAssets(dir string) (string, error) {
	if dir == "" {
		dir = os.Getenv("KUBEBUILDER_ASSETS")
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("no %s in folder %q: run `make cluster-binaries`, or set KUBEBUILDER_ASSETS", name, dir)
		}
	}
	return dir, nil
}

// prepareDir makes the folders. Those of etcd and kube-apiserver start empty, because
// certificates and data of another run do not fit the new one.
func (c *Cluster) prepareDir(dir string) (string, error) {
	if dir == "" {
		temporary, err := os.MkdirTemp("", "tokenward-cluster-")
		if err != nil {
			return "", err
		}
		c.onStop(func() error { return os.RemoveAll(temporary) })
		dir = temporary
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func (c *Cluster) logTo(given io.Writer, path string) (io.Writer, error) {
	if given != nil {
		return given, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("make the log file: %w", err)
	}
	c.onStop(file.Close)
	return file, nil
}
