// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package testenv starts a real etcd and kube-apiserver for tests, with our kinds
// installed. The binaries come from KUBEBUILDER_ASSETS when it is set, else from
// bin/k8s, where `make cluster-binaries` puts them.
//
// It is for tests only; what a demo or an end-to-end test needs beyond an API
// server lives in hack/cluster.
package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Options say how the API server differs from the usual one.
type Options struct {
	// ServiceAccountAdmission turns the admission plugin on that mounts API tokens,
	// as every real cluster has it. Pods then need their service account to exist.
	ServiceAccountAdmission bool
	// Webhooks are installed and served from the options' local address.
	Webhooks envtest.WebhookInstallOptions
}

// Env is a running control plane.
type Env struct {
	*envtest.Environment
	Config *rest.Config
}

// Root is the top folder of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// New starts a control plane. The caller stops it with [Env.Stop]; use it from TestMain.
func New(options Options) (*Env, error) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(Root(), "bin", "k8s")
	}
	if _, err := os.Stat(filepath.Join(assets, "kube-apiserver")); err != nil {
		return nil, fmt.Errorf("no kube-apiserver in %s: run `make cluster-binaries`, or set KUBEBUILDER_ASSETS", assets)
	}
	environment := &envtest.Environment{
		BinaryAssetsDirectory:    assets,
		CRDDirectoryPaths:        []string{filepath.Join(Root(), "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		WebhookInstallOptions:    options.Webhooks,
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	// Nobody goes there (RFC 5737). Without it a machine needs a default route.
	environment.ControlPlane.GetAPIServer().Configure().Set("advertise-address", "192.0.2.1")
	if options.ServiceAccountAdmission {
		environment.ControlPlane.GetAPIServer().Configure().Disable("disable-admission-plugins")
	}
	config, err := environment.Start()
	if err != nil {
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	// The tests' own speed limit would only hide how many requests the code makes.
	config.QPS = -1
	return &Env{Environment: environment, Config: config}, nil
}

// Start starts a control plane that ends with the test.
func Start(tb testing.TB, options Options) *Env {
	tb.Helper()
	env, err := New(options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := env.Stop(); err != nil {
			tb.Errorf("stop the control plane: %v", err)
		}
	})
	return env
}
