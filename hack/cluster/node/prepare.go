// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages of Debian that a node needs, by a program of each.
var packages = map[string]string{
	"containerd":        "containerd",
	"runc":              "runc",
	cniPlugins + "/ptp": "containernetworking-plugins",
	"iptables":          "iptables",
	"conntrack":         "conntrack",
	"nft":               "nftables",
	"ip":                "iproute2",
	"nsenter":           "util-linux",
}

// prepare installs what is missing and looks for the rest that a node needs. What only
// a node can find out, it says itself.
func prepare(ctx context.Context, o options, out io.Writer) error {
	if err := installPackages(ctx, out); err != nil {
		return err
	}
	for _, need := range []struct{ path, what string }{
		{filepath.Join(o.binaries, "kubelet"), "run `make cluster-up`, which builds it"},
		{filepath.Join(o.images, "index.json"), "run `make images`"},
		{"/dev/kmsg", "kubelet reads it (in a container: run it privileged)"},
		{"/proc/sys/net/ipv6", needIPv6},
	} {
		if _, err := os.Stat(need.path); err != nil {
			return fmt.Errorf("%s is missing: %s", need.path, need.what)
		}
	}
	for _, path := range []string{o.dir, o.binaries, o.images} {
		if strings.HasPrefix(path, "/run/") || strings.HasPrefix(path, "/proc/") {
			return fmt.Errorf("%s cannot be used: nodes have a /run of their own", path)
		}
	}
	return nil
}

func installPackages(ctx context.Context, out io.Writer) error {
	var missing []string
	for program, name := range packages {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	wanted := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("programs are missing that Debian has in the packages %s: install them", wanted)
	}
	fmt.Fprintf(out, "cluster: installing %s\n", wanted)
	install := func(args ...string) error {
		command := exec.CommandContext(ctx, "apt-get", args...) //nolint:gosec // names from above
		command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		output, err := command.CombinedOutput()
		if err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, lastLine(output))
		}
		return nil
	}
	if err := errors.Join(install("update", "-qq"), install(append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)...)); err != nil {
		return fmt.Errorf("install %s: %w", wanted, err)
	}
	// Debian starts containerd at once; nodes have their own, and nobody asked for this one.
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return run(ctx, "systemctl", "disable", "--now", "containerd.service")
	}
	return nil
}

func lastLine(output []byte) string {
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return lines[len(lines)-1]
}
