// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package testservers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// RequireVariable names the environment variable that turns a skip into a failure.
const RequireVariable = "TOKENWARD_REQUIRE_SERVERS"

const (
	startPatience = 60 * time.Second
	stopPatience  = 20 * time.Second
	// probeEvery is how often a starting server is asked whether it answers.
	probeEvery = 20 * time.Millisecond
)

// binary returns the path of a server's program, from PATH or the folders where
// Debian keeps what only administrators call. Without one it skips or fails the test.
func binary(tb testing.TB, name, debianPackage string) string {
	tb.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/lib/postgresql/*/bin"} {
		found, _ := filepath.Glob(filepath.Join(pattern, name))
		if len(found) > 0 {
			return slices.Max(found)
		}
	}
	message := fmt.Sprintf("there is no %s on this machine: apt-get install %s", name, debianPackage)
	if os.Getenv(RequireVariable) != "" {
		tb.Fatalf("%s (%s is set, so it is not skipped)", message, RequireVariable)
	}
	tb.Skip(message)
	panic("unreachable")
}

// Ports of servers are below those that the system gives to outgoing connections (from
// 32768): such a connection could have the port just when its server is started, or
// started again.
const firstPort, lastPort = 20000, 27999

// freePort is a loopback port that is nobody's until the test ends. Tests of other
// packages run at the same time, so it is reserved by a name of the system's that
// vanishes with this process.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)                                 //nolint:gosec // spreads ports, hides nothing
		reserved, err := net.Listen("unix", fmt.Sprintf("@tokenward-testservers-%d", port)) //nolint:noctx // returns at once
		if err != nil {
			continue
		}
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // returns at once
		if err != nil {
			_ = reserved.Close()
			continue
		}
		_ = listener.Close()
		tb.Cleanup(func() { _ = reserved.Close() })
		return port
	}
	tb.Fatalf("no port from %d to %d is free", firstPort, lastPort)
	return 0
}

// folder is a temporary folder that the server may write to, whichever user it runs
// as. Its path is short, for Unix sockets in it (108 characters are the limit).
func folder(tb testing.TB) string {
	tb.Helper()
	path, err := os.MkdirTemp("", "tw-") //nolint:usetesting // tb.TempDir is long, and closed to other users
	if err != nil {
		tb.Fatalf("make a data folder: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(path) })
	if id := unprivileged(tb); id != nil {
		if err := os.Chown(path, int(id.Uid), int(id.Gid)); err != nil {
			tb.Fatalf("give the data folder away: %v", err)
		}
	}
	return path
}

// unprivileged is the user that servers run as when the test runs as root, which
// some of them refuse; nil when it does not.
func unprivileged(tb testing.TB) *syscall.Credential {
	tb.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		tb.Fatalf("find a user to run servers as: %v", err)
	}
	uid, errUID := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(nobody.Gid, 10, 32)
	if err := errors.Join(errUID, errGID); err != nil {
		tb.Fatalf("read the ids of %q: %v", nobody.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// command is a program of a server, to run as the unprivileged user.
func command(tb testing.TB, path string, args ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.Command(path, args...) //nolint:noctx,gosec // it runs until Cleanup; the path is from binary
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME=/nonexistent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: unprivileged(tb)}
	return cmd
}

// run runs a program of a server to its end, such as one that makes the data folder.
func run(tb testing.TB, path string, args ...string) {
	tb.Helper()
	if output, err := command(tb, path, args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", filepath.Base(path), err, output)
	}
}

// process is a server that runs until the test ends.
type process struct {
	tb     testing.TB
	name   string
	cmd    *exec.Cmd
	output lockedBuffer
	exited chan struct{}
	// signal asks it to stop.
	signal syscall.Signal
}

// start starts a server and waits until probe says that it answers. It is stopped
// with the signal (SIGTERM, or what the server takes for a fast stop) in Cleanup.
func start(tb testing.TB, signal syscall.Signal, probe func(context.Context) error, path string, args ...string) *process {
	tb.Helper()
	p := &process{tb: tb, name: filepath.Base(path), cmd: command(tb, path, args...), exited: make(chan struct{}), signal: signal}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	// It ends with us even when we are killed. What counts is the thread that starts it, so
	// that one is kept for it. The program that makes the data folder is not asked to.
	endWithThread(p.cmd.SysProcAttr, signal)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer close(p.exited)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		tb.Fatalf("start %s: %v", p.name, err)
	}
	tb.Cleanup(p.stop)
	ctx, cancel := context.WithTimeout(context.Background(), startPatience) //nolint:usetesting // a server may be started from TestMain or Cleanup
	defer cancel()
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return p
		}
		select {
		case <-ticker.C:
		case <-p.exited:
			tb.Fatalf("%s ended at its start:\n%s", p.name, p.output.String())
		case <-ctx.Done():
			tb.Fatalf("%s does not answer after %s: %v\n%s", p.name, startPatience, err, p.output.String())
		}
	}
}

// stop asks the server to stop, and kills it when it takes too long. It may be called
// again.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(p.signal)
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.kill()
		p.tb.Errorf("%s did not stop within %s:\n%s", p.name, stopPatience, p.output.String())
	}
}

// kill ends the server as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// lockedBuffer takes a server's output, which is only shown when it fails.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// writeFor writes a file that the server, whichever user it runs as, may read and write.
func writeFor(tb testing.TB, path string, content []byte) {
	tb.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	if id := unprivileged(tb); id != nil {
		if err := os.Chown(path, int(id.Uid), int(id.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
}
