// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// machine is a node seen from outside: its process 1 and its folder.
type machine struct {
	node
	options options
}

func (o options) machine(number int) machine {
	return machine{node: node{Number: number, State: filepath.Join(o.dir, node{Number: number}.Name())}, options: o}
}

func (o options) machines() []machine {
	var all []machine
	for number := range o.nodes {
		all = append(all, o.machine(number+1))
	}
	return all
}

func (m machine) initLog() string { return filepath.Join(m.State, "log", "init.log") }

// holdLock is called by process 1: it holds the lock as long as it lives.
func holdLock(path string) error {
	// Not an os.File: the garbage collector would close it, and that ends the lock.
	file, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(uintptr(file), syscall.F_SETLK, &lock); err != nil {
		return fmt.Errorf("the node runs already: %w", err)
	}
	return nil
}

// pid is that of the node's process 1, 0 when it does not run. The kernel says who
// holds the lock, so it is never the pid of another process that came later.
func (m machine) pid() int {
	file, err := os.OpenFile(filepath.Join(m.State, "lock"), os.O_RDWR, 0)
	if err != nil {
		return 0
	}
	defer file.Close() //nolint:errcheck // only asked
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(file.Fd(), syscall.F_GETLK, &lock); err != nil || lock.Type == syscall.F_UNLCK {
		return 0
	}
	return int(lock.Pid)
}

// started is a node that this process has started.
type started struct {
	machine
	ended chan struct{} // closed when process 1 has ended
}

// start starts process 1 in namespaces of its own; it outlives this process. The API
// server is reached through listener, which may be nil.
func (m machine) start(ctx context.Context, listener *os.File) (*started, error) {
	if err := os.MkdirAll(filepath.Dir(m.initLog()), 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(m.initLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	command := exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe", "init",
		fmt.Sprintf("-number=%d", m.Number), "-dir="+m.options.dir, "-bin="+m.options.binaries, "-images="+m.options.images, fmt.Sprintf("-nodes=%d", m.options.nodes))
	command.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	command.Dir = "/"
	command.Stdout, command.Stderr = log, log
	if listener != nil {
		command.ExtraFiles = []*os.File{listener}
	}
	command.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := command.Start(); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: a node needs CAP_SYS_ADMIN (in a container: run it privileged)", err)
		}
		return nil, fmt.Errorf("start %s: %w", m.Name(), err)
	}
	s := &started{machine: m, ended: make(chan struct{})}
	go func() {
		_ = command.Wait()
		close(s.ended)
	}()
	return s, nil
}

// err says why process 1 has ended, in its own last words.
func (s *started) err() error {
	content, _ := os.ReadFile(s.initLog())
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return fmt.Errorf("%s ended: %s (see %s)", s.Name(), lines[len(lines)-1], s.State)
}

// kill ends process 1, with which the kernel ends every process of the node, and
// returns when all are gone. It removes the node's cgroup.
func (m machine) kill(ctx context.Context) error {
	if pid := m.pid(); pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d of %s: %w", pid, m.Name(), err)
		}
		if err := until(ctx, endTimeout, func(context.Context) error { return gone(pid) }); err != nil {
			return err
		}
	}
	// Its time is that of the last start: see ready.
	if err := os.Remove(filepath.Join(m.State, "kubelet.yaml")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Removing one fails as long as anything is inside: it is the proof of the end.
	return until(ctx, endTimeout, func(context.Context) error { return removeCgroups(m.cgroup()) })
}

const endTimeout = 30 * time.Second

// gone is nil when the process has ended. A zombie has, and so have all processes of
// its namespace; who started it may be slow to collect it.
func gone(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil //nolint:nilerr // there is no such process
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	if strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
		return nil
	}
	return fmt.Errorf("process %d is still there", pid)
}

// join leads a cable from the first node to m, which runs.
func (m machine) join(ctx context.Context) error {
	first, self := m.options.machine(1).pid(), m.pid()
	if first == 0 || self == 0 {
		return fmt.Errorf("%s or node-1 does not run", m.Name())
	}
	if err := waitForInterface(ctx, first, "lan"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "add", m.Name(), "type", "veth", "peer", "name", "lan", "netns", fmt.Sprint(self)},
		{"link", "set", m.Name(), "master", "lan", "up"},
	} {
		if err := run(ctx, "nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", first), "ip"}, args...)...); err != nil {
			return fmt.Errorf("join %s and node-1: %w", m.Name(), err)
		}
	}
	return nil
}

func waitForInterface(ctx context.Context, pid int, name string) error {
	return until(ctx, endTimeout, func(ctx context.Context) error {
		return run(ctx, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", pid), "ip", "link", "show", name)
	})
}

// run runs a command, and its output is the error when it fails.
func run(ctx context.Context, name string, args ...string) error {
	output, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}

// until asks again and again, and gives up with the last error.
func until(ctx context.Context, patience time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // what is wrong, rather than that time is up
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (gave up after %s)", last, patience)
		case <-ticker.C:
		}
	}
}

// copyBoth copies in both directions until both are done.
func copyBoth(a, b io.ReadWriteCloser) {
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(a, b)
		_ = a.Close()
		close(done)
	}()
	_, _ = io.Copy(b, a)
	_ = b.Close()
	<-done
}
