// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tokenward/tokenward/hack/image/oci"
)

// listenerFile is the file descriptor of the socket that the first node inherits.
const listenerFile = 3

// runInit is process 1 of a node. It returns only when the node cannot start.
func runInit(ctx context.Context, o options, number int) error {
	outside := o.machine(number)
	if err := holdLock(filepath.Join(outside.State, "lock")); err != nil {
		return err
	}
	if err := enterCgroup(outside); err != nil {
		return err
	}
	if err := outside.mountAll(); err != nil {
		return err
	}
	n := node{Number: number, State: filepath.Join(insideState, outside.Name()), Cgroup: outside.cgroup()}
	if err := syscall.Sethostname([]byte(n.Name())); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := n.setUpNetwork(ctx, o.nodes); err != nil {
		return err
	}
	if err := n.writeConfig(snapshotter("/var/lib")); err != nil {
		return err
	}
	if err := serveImages(ctx); err != nil {
		return err
	}
	if n.first() {
		go forwardAPI()
	}
	return supervise(ctx, n)
}

// mountAll gives the node a view of the files of its own: what its programs write to
// /var, /tmp and /run goes to the node's folder or to memory.
func (m machine) mountAll() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make all mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	state := filepath.Join(insideState, m.Name())
	binds := [][2]string{{m.options.binaries, insideBinaries}, {m.options.images, insideImages}, {m.options.dir, insideState}}
	for _, name := range []string{"lib", "log", "cache"} {
		if err := os.MkdirAll(filepath.Join(m.State, "var", name), 0o755); err != nil {
			return err
		}
	}
	// A crash may have left some; and the registry of leases of CNI goes with the pods' namespaces.
	for _, stale := range []string{"tmp", "var/lib/cni"} {
		if err := os.RemoveAll(filepath.Join(m.State, stale)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(m.State, "tmp"), 0o1777); err != nil {
		return err
	}
	if err := os.Symlink("/run", filepath.Join(m.State, "var", "run")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	binds = append(binds, [2]string{filepath.Join(state, "tmp"), "/tmp"}, [2]string{filepath.Join(state, "var"), "/var"})
	for _, b := range binds {
		if err := os.MkdirAll(b[1], 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(b[0], b[1], "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", b[0], b[1], err)
		}
	}
	return pretendSettings()
}

// pretendSettings covers the settings of the kernel that kubelet would change for the
// whole machine: it finds them as it wants them.
func pretendSettings() error {
	for name, value := range map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
	} {
		file := filepath.Join(insideSettings, strings.ReplaceAll(name, "/", "."))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(file, "/proc/sys/"+name, "", syscall.MS_BIND, ""); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cover the setting %s: %w", name, err)
		}
	}
	return nil
}

// snapshotter is overlayfs, or native where that cannot be mounted on the file system
// of dir, as on another overlay.
func snapshotter(dir string) string {
	work, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return "native"
	}
	defer os.RemoveAll(work) //nolint:errcheck // in the node's own folder
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(work, name), 0o755); err != nil {
			return "native"
		}
	}
	merged := filepath.Join(work, "merged")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", work)
	if err := syscall.Mount("overlay", merged, "overlay", 0, options); err != nil {
		fmt.Printf("images are copied for each container: overlayfs is not to be had here: %v\n", err)
		return "native"
	}
	_ = syscall.Unmount(merged, 0)
	return "overlayfs"
}

// serveImages serves the folder with images to this node's containerd.
func serveImages(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", registryAddress)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: oci.Layout(insideImages), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return nil
}

// forwardAPI leads connections from the machine's loopback interface, which the
// inherited socket belongs to, to the API server.
func forwardAPI() {
	listener, err := net.FileListener(os.NewFile(listenerFile, "api"))
	if err != nil {
		fmt.Printf("the API server cannot be reached from outside: %v\n", err)
		return
	}
	for {
		outside, err := listener.Accept()
		if err != nil {
			fmt.Printf("the API server cannot be reached from outside any more: %v\n", err)
			return
		}
		go func() {
			inside, err := net.Dial("tcp", net.JoinHostPort(node{Number: 1}.Address4(), apiPort)) //nolint:noctx // lasts as long as the connection
			if err != nil {
				_ = outside.Close()
				return
			}
			copyBoth(outside, inside)
		}()
	}
}
