// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// kubectl is the one of `make cluster-up`, for the cluster of KUBECONFIG.
type kubectl struct {
	paths paths
}

func (k kubectl) binary() string { return filepath.Join(k.paths.root, "bin", "k8s", "kubectl") }

func (k kubectl) command(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, k.binary(), args...) //nolint:gosec // our own binary
	command.SysProcAttr = attributes()
	return command
}

// run runs it, and fails with what it said.
func (k kubectl) run(ctx context.Context, stdin []byte, args ...string) error {
	command := k.command(ctx, args...)
	command.Stdin = bytes.NewReader(stdin)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, indent(output))
	}
	return nil
}

// forward makes ports of a pod ports of this machine, until ctx ends. Which ones it says.
func (k kubectl) forward(ctx context.Context, to string, ports ...string) (*process, []string, error) {
	here, err := freePorts(ctx, len(ports))
	if err != nil {
		return nil, nil, err
	}
	args := []string{"-n", shop.Namespace, "port-forward", to}
	var urls []string
	for i, port := range ports {
		args = append(args, here[i]+":"+port)
		urls = append(urls, "http://127.0.0.1:"+here[i])
	}
	path := k.paths.log("port-forward-" + filepath.Base(to))
	log, err := os.Create(path) //nolint:gosec // in the demo's own folder
	if err != nil {
		return nil, nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	command := k.command(ctx, args...)
	command.Stdout, command.Stderr = log, log
	running, err := start(ctx, "kubectl port-forward "+to, path, command)
	return running, urls, err
}

// explain writes what somebody who looks for the cause of a failure asks first.
func (k kubectl) explain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for name, args := range map[string][]string{
		"pods":        {"get", "pods", "--all-namespaces", "-o", "wide"},
		"events":      {"get", "events", "--all-namespaces"},
		"description": {"-n", shop.Namespace, "describe", "signingkeys,tokenpolicies,deployments,replicasets,pods"},
		"sidecars":    {"-n", shop.Namespace, "logs", "-l", "app=shop", "--all-containers", "--prefix", "--tail=-1"},
		"manager":     {"-n", operatorNamespace, "logs", "deployment/tokenward-manager", "--all-pods", "--tail=-1"},
		"issuer":      {"-n", operatorNamespace, "logs", "deployment/tokenward-issuer", "--all-pods", "--tail=-1"},
	} {
		log, err := os.Create(k.paths.log(name))
		if err != nil {
			continue
		}
		command := k.command(ctx, args...)
		command.Stdout, command.Stderr = log, log
		if err := command.Run(); err != nil {
			_, _ = log.WriteString(err.Error())
		}
		_ = log.Close()
	}
}
