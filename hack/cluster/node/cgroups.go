// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// cgroup is that of all nodes in each hierarchy, named as the cluster's folder, so that
// two clusters have one each. Processes of a node are in components below it, pods in
// kubepods beside that: version 2 wants leaves.
func (o options) cgroup() string { return filepath.Base(o.dir) }

func (m machine) cgroup() string { return filepath.Join(m.options.cgroup(), m.Name()) }

// hierarchy is one mount of cgroups: the only one of version 2, or one of several.
type hierarchy struct {
	mount string
	v1    bool
	// controllers of version 1.
	controllers string
}

// hierarchies are those that this process sees.
func hierarchies() ([]hierarchy, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for line := range bytes.Lines(content) {
		before, after, _ := strings.Cut(string(line), " - ")
		mount, source := strings.Fields(before), strings.Fields(after)
		if len(mount) < 5 || len(source) < 3 {
			continue
		}
		switch source[0] {
		case "cgroup2":
			all = append(all, hierarchy{mount: mount[4]})
		case "cgroup":
			all = append(all, hierarchy{mount: mount[4], v1: true, controllers: source[2]})
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no cgroups are mounted: a node needs those of version 2 or 1 at /sys/fs/cgroup")
	}
	return all, nil
}

// enterCgroup makes the cgroup of the node and moves this process into it.
func enterCgroup(m machine) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		path := h.mount
		for _, name := range []string{m.options.cgroup(), m.Name(), "components"} {
			if len(all) == 1 && !h.v1 {
				delegate(path)
			}
			path = filepath.Join(path, name)
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("cgroups cannot be made: %w (in a container: run it privileged)", err)
			}
			if h.v1 && strings.Contains(h.controllers, "cpuset") {
				inheritCPUs(path)
			}
		}
		if len(all) == 1 && !h.v1 {
			if err := checkDelegated(filepath.Dir(path)); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter the cgroup %s: %w", path, err)
		}
	}
	return nil
}

// delegate gives the children of a cgroup of version 2 all controllers it has, one by
// one, because one that cannot be given fails all.
func delegate(path string) {
	have, _ := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	for controller := range strings.FieldsSeq(string(have)) {
		_ = os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}

func checkDelegated(path string) error {
	have, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, needed := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+needed+" ") {
			return fmt.Errorf("the cgroup controller %s is not to be had below /sys/fs/cgroup: processes in its topmost cgroup hold it back, "+
				"move them into one of their own (in a container: `mkdir /sys/fs/cgroup/init && echo 1 > /sys/fs/cgroup/init/cgroup.procs`)", needed)
		}
	}
	return nil
}

// inheritCPUs fills in what a new cpuset of version 1 lacks before a process may enter.
func inheritCPUs(path string) {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if parent, err := os.ReadFile(filepath.Join(filepath.Dir(path), name)); err == nil {
			_ = os.WriteFile(filepath.Join(path, name), parent, 0)
		}
	}
}

// cgroupPaths are the folders of the cgroup name (a cluster's, or a node's) that exist.
func cgroupPaths(name string) ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, h := range all {
		path := filepath.Join(h.mount, name)
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	return found, nil
}

// removeCgroups removes the cgroup name with all below it. It fails while processes are inside.
func removeCgroups(name string) error {
	paths, err := cgroupPaths(name)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, removeCgroup(path))
	}
	return errors.Join(errs...)
}

func removeCgroup(path string) error {
	children, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, child := range children {
		if child.IsDir() {
			if err := removeCgroup(filepath.Join(path, child.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(path)
}

// memoryOf is what the processes of a cgroup have in memory, in bytes, without the page
// cache; 0 when the kernel does not count it.
func memoryOf(name string) int64 {
	paths, _ := cgroupPaths(name)
	for _, path := range paths {
		stat, err := os.ReadFile(filepath.Join(path, "memory.stat"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(stat)) {
			var key string
			var value int64
			if _, err := fmt.Sscan(line, &key, &value); err == nil && (key == "total_rss" || key == "anon") {
				return value
			}
		}
	}
	return 0
}
