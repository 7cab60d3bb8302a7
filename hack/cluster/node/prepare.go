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
	"slices"
	"strconv"
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

// check looks for what the machine must have, and installs the packages that are missing.
// What only a node can find out, it says itself.
func check(ctx context.Context, out io.Writer) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	if missing := missingCapabilities(status); len(missing) > 0 {
		return fmt.Errorf("a node needs the capabilities %s, which root does not have here (in a container: run it privileged)", strings.Join(missing, ", "))
	}
	if err := exist([]need{
		{"/dev/kmsg", "kubelet reads it (in a container: run it privileged)"},
		{"/proc/sys/net/ipv6", needIPv6},
	}); err != nil {
		return err
	}
	return installPackages(ctx, out)
}

// need is a file, and what to do or to know when it is missing.
type need struct{ path, what string }

func exist(needs []need) error {
	for _, n := range needs {
		if _, err := os.Stat(n.path); err != nil {
			return fmt.Errorf("%s is missing: %s", n.path, n.what)
		}
	}
	return nil
}

// prepare checks the machine, and what was built for it.
func prepare(ctx context.Context, o options, out io.Writer) error {
	if err := check(ctx, out); err != nil {
		return err
	}
	if err := exist([]need{
		{filepath.Join(o.binaries, "kubelet"), "run `make cluster-up`, which builds it"},
		{filepath.Join(o.images, "index.json"), "run `make images`"},
	}); err != nil {
		return err
	}
	for _, path := range []string{o.dir, o.binaries, o.images} {
		if strings.HasPrefix(path, "/run/") || strings.HasPrefix(path, "/proc/") {
			return fmt.Errorf("%s cannot be used: nodes have a /run of their own", path)
		}
	}
	return nil
}

// capabilities that a node needs, by their number in linux/capability.h: those of its
// own work, and those that containerd gives to a container by default.
var capabilities = map[string]int{
	"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_FSETID": 4, "CAP_KILL": 5, "CAP_SETGID": 6,
	"CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13,
	"CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27, "CAP_AUDIT_WRITE": 29, "CAP_SETFCAP": 31,
}

// missingCapabilities reads /proc/PID/status.
func missingCapabilities(status []byte) []string {
	var missing []string
	for line := range strings.Lines(string(status)) {
		mask, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		have, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		for name, number := range capabilities {
			if err != nil || have&(1<<number) == 0 {
				missing = append(missing, name)
			}
		}
	}
	slices.Sort(missing)
	return missing
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
		command := exec.CommandContext(ctx, "apt-get", args...)
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
