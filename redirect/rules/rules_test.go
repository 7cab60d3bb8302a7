// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/tokenward/tokenward/redirect/rules"
)

const (
	podAddress, otherAddress   = "10.9.0.2", "10.9.0.3"
	podAddress6, otherAddress6 = "fd00:9::2", "fd00:9::3"

	patience = 30 * time.Second
)

var shop = rules.Redirect{Port: 8080, To: 18080}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: the packet filter rules of Redirect capture, because network namespaces need root")
	}
}

// podAndOther are two namespaces that reach each other; an application and a sidecar
// serve in the first.
func podAndOther(t *testing.T) (pod, other *namespace) {
	t.Helper()
	requireRoot(t)
	pod, other = newNamespace(t), newNamespace(t)
	join(t, pod, other)
	pod.serve(t, 8080, "application")
	pod.serve(t, 18080, "sidecar")
	pod.serve(t, 9090, "another port")
	return pod, other
}

func install(t *testing.T, pod *namespace) {
	t.Helper()
	var err error
	pod.in(func() { err = rules.Install(shop) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingFromOutsideReachesTheApplication(t *testing.T) {
	pod, other := podAndOther(t)
	for _, address := range []string{podAddress, podAddress6} {
		if got := other.call(t, net.JoinHostPort(address, "8080"), patience); got != "application" {
			t.Fatalf("before: %q answers at %s", got, address)
		}
	}
	for _, pass := range []string{"once", "twice"} {
		install(t, pod)
		t.Run("installed "+pass, func(t *testing.T) {
			for _, address := range []string{podAddress, podAddress6} {
				for port, want := range map[string]string{"8080": "sidecar", "18080": "sidecar", "9090": "another port"} {
					if got := other.call(t, net.JoinHostPort(address, port), patience); got != want {
						t.Errorf("from outside %q answers at %s port %s, want %q", got, address, port, want)
					}
				}
			}
			for _, address := range []string{"127.0.0.1", "::1", podAddress, podAddress6} {
				if got := pod.call(t, net.JoinHostPort(address, "8080"), patience); got != "application" {
					t.Errorf("in the pod %q answers at %s", got, address)
				}
			}
			if got := count(t, pod); got != 6 {
				t.Errorf("%d rules, want 3 for each family", got)
			}
		})
	}
}

// count is the number of rules in the pod's tables.
func count(t *testing.T, pod *namespace) (rules int) {
	t.Helper()
	inNamespace(t, pod, func(conn *nftables.Conn) error {
		chains, err := conn.ListChains()
		for _, chain := range chains {
			found, err := conn.GetRules(chain.Table, chain)
			if err != nil {
				return err
			}
			rules += len(found)
		}
		return err
	})
	return rules
}

func inNamespace(t *testing.T, n *namespace, work func(*nftables.Conn) error) {
	t.Helper()
	var err error
	n.in(func() {
		var conn *nftables.Conn
		if conn, err = nftables.New(); err == nil {
			err = work(conn)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// NAT lets a packet pass that conntrack does not follow.
func TestAConnectionThatIsNotTrackedIsDropped(t *testing.T) {
	pod, other := podAndOther(t)
	install(t, pod)
	for family, address := range map[nftables.TableFamily]string{nftables.TableFamilyIPv4: podAddress, nftables.TableFamilyIPv6: podAddress6} {
		inNamespace(t, pod, func(conn *nftables.Conn) error {
			table := conn.AddTable(&nftables.Table{Family: family, Name: "untracked"})
			chain := conn.AddChain(&nftables.Chain{
				Name: "early", Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
			})
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(8080)},
				&expr.Notrack{},
			}})
			return conn.Flush()
		})
		to := net.JoinHostPort(address, "8080")
		if got := other.call(t, to, time.Second/2); got != "" {
			t.Errorf("%q answers at %s", got, to)
		}
		// The other half: it is the guard that holds this, and nothing else.
		inNamespace(t, pod, func(conn *nftables.Conn) error {
			conn.FlushChain(&nftables.Chain{Name: "guard", Table: &nftables.Table{Family: family, Name: "tokenward"}})
			return conn.Flush()
		})
		if got := other.call(t, to, patience); got != "application" {
			t.Errorf("without the guard %q answers at %s: the test shows nothing", got, to)
		}
	}
}

// HTTP/3 comes over UDP.
func TestPacketsOfUDP(t *testing.T) {
	pod, other := podAndOther(t)
	application, open, caller := pod.packets(t, 8080), pod.packets(t, 8081), other.packets(t, 9999)
	install(t, pod)
	for _, address := range []string{podAddress, podAddress6} {
		t.Run(address, func(t *testing.T) {
			at := func(address string, port int) *net.UDPAddr { return &net.UDPAddr{IP: net.ParseIP(address), Port: port} }
			send(t, caller, "to the application", at(address, 8080))
			send(t, caller, "to another port", at(address, 8081))
			// One came after the other: what is not there by now was dropped.
			if got, _ := receive(t, open, patience); got != "to another port" {
				t.Errorf("another port got %q", got)
			}
			if got, _ := receive(t, application, time.Millisecond); got != "" {
				t.Errorf("the application got %q", got)
			}
			asked := otherAddress
			if strings.Contains(address, ":") {
				asked = otherAddress6
			}
			send(t, application, "a question", at(asked, 9999))
			got, from := receive(t, caller, patience)
			if got != "a question" {
				t.Fatalf("the other got %q", got)
			}
			send(t, caller, "the answer", from)
			if got, _ := receive(t, application, patience); got != "the answer" {
				t.Errorf("the application got %q to its question", got)
			}
		})
	}
}

func send(t *testing.T, from *net.UDPConn, word string, to *net.UDPAddr) {
	t.Helper()
	if _, err := from.WriteToUDP([]byte(word), to); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, at *net.UDPConn, patience time.Duration) (string, *net.UDPAddr) {
	t.Helper()
	if err := at.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 64)
	length, from, err := at.ReadFromUDP(word)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(word[:length]), from
}

func TestWithoutTheCapability(t *testing.T) {
	requireRoot(t)
	pod := newNamespace(t)
	var err error
	pod.in(func() {
		// Capabilities belong to a thread, and this one ends with the test.
		header := struct{ version, thread uint32 }{version: 0x20080522}
		var none [6]uint32
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0); errno != 0 {
			err = fmt.Errorf("drop all capabilities: %w", errno)
			return
		}
		err = rules.Install(shop)
	})
	want := "the rules of capture Redirect need the capability NET_ADMIN, and this container does not have it: let the cluster's policies and the container runtime leave it to the init container tokenward-redirect, or use the pod annotation tokenward.io/capture=Port: "
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}
