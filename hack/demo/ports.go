// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/tokenward/tokenward/controllers/injection"
)

// checkPorts fails when a port is taken that the demo cannot choose: the sidecar's two,
// which are the same in every pod, and the one that the application's pod declares.
func checkPorts(ctx context.Context) error {
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(podManifest, pod); err != nil {
		return fmt.Errorf("read manifests/pod.yaml: %w", err)
	}
	var taken []string
	for _, port := range []int{injection.ListenPort, injection.AdminPort, int(pod.Spec.Containers[0].Ports[0].ContainerPort)} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(port))
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			taken = append(taken, strconv.Itoa(port))
		case err != nil:
			return fmt.Errorf("port %d: %w", port, err)
		default:
			_ = listener.Close()
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return fmt.Errorf("in use on this machine: port %s. The demo needs these ports.\n"+
		"Is another demo running (make demo KEEP=1)? End it with Ctrl-C. Or see who has them:\n"+
		"    ss -ltnp | grep -E ':(%s) '", strings.Join(taken, ", "), strings.Join(taken, "|"))
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
