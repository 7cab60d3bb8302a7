// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// restart ends one node as a power cut would, and starts it again. Without node-1
// there is no network and no API server, so all nodes end with it.
func restart(ctx context.Context, o options, out io.Writer) error {
	if err := o.machine(o.number).kill(ctx); err != nil {
		return err
	}
	return up(ctx, o, out)
}

// down ends all nodes and removes all that they were.
func down(ctx context.Context, o options, out io.Writer) error {
	machines, err := o.existing()
	if err != nil {
		return err
	}
	for _, m := range machines {
		if err := m.kill(ctx); err != nil {
			return err
		}
	}
	if err := removeCgroups(o.cgroup()); err != nil {
		return err
	}
	if err := os.RemoveAll(o.dir); err != nil {
		return err
	}
	left, err := leftovers(o)
	if err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("something is left behind: %s", strings.Join(left, "; ")))
	}
	fmt.Fprintln(out, "cluster: it is down, and nothing of it is left on this machine")
	return nil
}

// existing are the nodes that have a folder or a cgroup, however many were asked for.
func (o options) existing() ([]machine, error) {
	paths, err := cgroupPaths(o.cgroup())
	if err != nil {
		return nil, err
	}
	var found []machine
	for number := 1; number <= 9; number++ {
		m := o.machine(number)
		for _, path := range append(paths, o.dir) {
			if _, err := os.Stat(filepath.Join(path, m.Name())); err == nil {
				found = append(found, m)
				break
			}
		}
	}
	return found, nil
}

// leftovers names what this machine has of a cluster.
func leftovers(o options) ([]string, error) {
	var left []string
	paths, err := cgroupPaths(o.cgroup())
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		left = append(left, "cgroup "+path)
	}
	if _, err := os.Stat(o.dir); err == nil {
		left = append(left, "folder "+o.dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(mounts) {
		if fields := strings.Fields(string(line)); len(fields) > 4 && strings.HasPrefix(fields[4], o.dir+"/") {
			left = append(left, "mount "+fields[4])
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	for _, process := range processes {
		content, err := os.ReadFile(process)
		if err != nil || !bytes.Contains(content, []byte(":/"+o.cgroup()+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(process))); err == nil && gone(pid) != nil {
			left = append(left, fmt.Sprintf("process %d", pid))
		}
	}
	return left, nil
}

// status says what runs and what it needs. It is an error when something is missing.
func status(ctx context.Context, o options, out io.Writer) error {
	machines, err := o.existing()
	if err != nil {
		return err
	}
	running := 0
	for _, m := range machines {
		pid := m.pid()
		if pid == 0 {
			fmt.Fprintf(out, "%s: does not run\n", m.Name())
			continue
		}
		running++
		fmt.Fprintf(out, "%s: runs, process %d, %d MB (programs %d MB, pods %d MB), logs in %s\n", m.Name(), pid,
			memoryOf(m.cgroup())>>20,
			memoryOf(filepath.Join(m.cgroup(), "components"))>>20,
			memoryOf(filepath.Join(m.cgroup(), "kubepods"))>>20,
			filepath.Join(m.State, "log"))
		if content, err := os.ReadFile(m.initLog()); err == nil {
			if n := bytes.Count(content, []byte(" is started again\n")); n > 0 {
				fmt.Fprintf(out, "%s: %d times a program was started again, see %s\n", m.Name(), n, m.initLog())
			}
		}
	}
	if running == 0 {
		left, err := leftovers(o)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("it does not run, but something is left: %s: `make cluster-up` starts it again, `make cluster-down` removes it", strings.Join(left, "; "))
		}
		fmt.Fprintln(out, "cluster: there is none, and nothing is left of one")
		return nil
	}
	o.nodes = len(machines)
	if err := allReady(o)(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster: %d nodes and DNS are ready; KUBECONFIG=%s\n", running, o.kubeconfig())
	return nil
}
