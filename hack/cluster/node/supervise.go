// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pauseBeforeRestart is how long a component that ended stays away.
const pauseBeforeRestart = time.Second

// exit is the end of a process.
type exit struct {
	pid    int
	status syscall.WaitStatus
}

// supervise starts the components of n, starts again what ends, and collects orphans,
// as process 1 does. It returns only when a component cannot be started at all.
func supervise(ctx context.Context, n node) error {
	exits, due := collect(), make(chan component)
	for _, c := range n.components() {
		go whenReachable(ctx, c, due)
	}
	running := map[int]component{}
	for {
		select {
		case c := <-due:
			pid, err := startComponent(n, c)
			if err != nil {
				return fmt.Errorf("start %s: %w", c.name, err)
			}
			running[pid] = c
		case e := <-exits:
			c, ours := running[e.pid]
			if !ours {
				continue // an orphan, from a pod
			}
			delete(running, e.pid)
			fmt.Printf("%s %s ended (exit status %d, signal %d) and is started again\n", time.Now().UTC().Format(time.RFC3339), c.name, e.status.ExitStatus(), e.status.Signal())
			time.AfterFunc(pauseBeforeRestart, func() { whenReachable(ctx, c, due) })
		}
	}
}

// collect waits for all children that this process has, adopted ones too.
func collect() <-chan exit {
	exits, children := make(chan exit), make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			for {
				var status syscall.WaitStatus
				pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
				if errors.Is(err, syscall.EINTR) {
					continue
				}
				if err != nil || pid <= 0 {
					break
				}
				exits <- exit{pid: pid, status: status}
			}
		}
	}()
	return exits
}

// whenReachable hands c on when what it needs accepts connections.
func whenReachable(ctx context.Context, c component, due chan<- component) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for c.after != "" && !accepts(ctx, c.after) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
	due <- c
}

func accepts(ctx context.Context, address string) bool {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	dialer := net.Dialer{Timeout: time.Second}
	connection, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	_ = connection.Close()
	return true
}

// startComponent starts a program and leaves waiting for it to collect.
func startComponent(n node, c component) (int, error) {
	path, err := exec.LookPath(c.program())
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile(filepath.Join(n.State, "log", c.name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	return syscall.ForkExec(path, append([]string{c.name}, c.args...), &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp"},
		Files: []uintptr{0, log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}
