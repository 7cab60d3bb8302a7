// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// namespace is a network namespace of its own, with the thread that lives in it.
type namespace struct {
	calls chan func()
	path  string
}

// newNamespace needs root. It is gone when the test ends.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{calls: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		made <- syscall.Unshare(syscall.CLONE_NEWNET)
		for call := range n.calls {
			call()
		}
	}()
	if err := <-made; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(n.calls) })
	n.in(func() { n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), syscall.Gettid()) })
	n.ip(t, "link set lo up")
	return n
}

// in runs work on the namespace's thread: sockets that it makes belong to the namespace.
func (n *namespace) in(work func()) {
	done := make(chan struct{})
	n.calls <- func() {
		defer close(done)
		work()
	}
	<-done
}

func (n *namespace) ip(t *testing.T, arguments string) {
	t.Helper()
	var out []byte
	var err error
	n.in(func() {
		out, err = exec.CommandContext(t.Context(), "ip", strings.Fields(arguments)...).CombinedOutput()
	})
	if err != nil {
		t.Fatalf("ip %s: %v: %s", arguments, err, out)
	}
}

// join connects two namespaces as a node does it with a pod.
func join(t *testing.T, pod, other *namespace) {
	t.Helper()
	pod.ip(t, "link add eth0 type veth peer name eth0 netns "+other.path)
	for at, n := range map[string]*namespace{podAddress: pod, otherAddress: other} {
		n.ip(t, "address add "+at+"/24 dev eth0")
	}
	for at, n := range map[string]*namespace{podAddress6: pod, otherAddress6: other} {
		n.ip(t, "address add "+at+"/64 dev eth0 nodad")
	}
	pod.ip(t, "link set eth0 up")
	other.ip(t, "link set eth0 up")
}

// serve answers each connection with a word.
func (n *namespace) serve(t *testing.T, port int, word string) {
	t.Helper()
	var listener net.Listener
	var err error
	n.in(func() { listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf(":%d", port)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(word))
			_ = conn.Close()
		}
	}()
}

// packets listens for UDP.
func (n *namespace) packets(t *testing.T, port int) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	var err error
	n.in(func() { conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: port}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call says who answers at an address; "" when nobody does in time.
func (n *namespace) call(t *testing.T, to string, patience time.Duration) string {
	t.Helper()
	var conn net.Conn
	var err error
	n.in(func() { conn, err = (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", to) })
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return ""
	case err != nil:
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // read to its end
	word := make([]byte, 64)
	length, err := conn.Read(word)
	if err != nil {
		t.Fatalf("read from %s: %v", to, err)
	}
	return string(word[:length])
}
