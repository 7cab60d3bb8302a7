// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package outbound_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tokenward/tokenward/internal/outbound"
)

func TestWhichAddressesAreReachable(t *testing.T) {
	for text, kind := range map[string]string{
		"10.0.0.1": "", "192.168.1.1": "", "172.16.0.1": "", "100.64.0.1": "", "8.8.8.8": "", "2001:db8::1": "", "fd00::1": "", "::ffff:10.0.0.1": "", "64:ff9b::a00:1": "",
		"127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback", "64:ff9b::7f00:1": "loopback", "64:ff9b:1::7f00:1": "loopback",
		"2002:7f00:1::": "loopback", "::127.0.0.1": "reserved",
		"169.254.169.254": "link-local", "::ffff:169.254.169.254": "link-local", "169.254.0.1": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local", "64:ff9b::a9fe:a9fe": "link-local",
		"fd00:ec2::254": "metadata", "100.100.100.200": "metadata", "168.63.129.16": "metadata", "192.0.0.192": "metadata", "fd20:ce::254": "metadata",
		"0.0.0.0": "unspecified", "::": "unspecified", "::ffff:0.0.0.0": "unspecified", "0.1.2.3": "reserved",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "ff02::1": "multicast", "255.255.255.255": "reserved", "240.0.0.1": "reserved", "fec0::1": "reserved", "2001::1": "reserved",
	} {
		err := outbound.Guard{}.Check(netip.MustParseAddr(text))
		var refused *outbound.RefusedError
		switch {
		case kind == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case kind != "" && (!errors.As(err, &refused) || refused.Kind != kind):
			t.Errorf("%s: got %v, want %s", text, err, kind)
		case err != nil && strings.Contains(err.Error(), text):
			t.Errorf("the error tells the address: %v", err)
		}
	}
	if err := (outbound.Guard{}).Check(netip.Addr{}); err == nil {
		t.Error("no address at all is reachable")
	}
}

func TestAnAdministratorAllowsRanges(t *testing.T) {
	g := outbound.Guard{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/24"), netip.MustParsePrefix("::ffff:169.254.20.0/120"), netip.MustParsePrefix("fe80::/64")}}
	for text, want := range map[string]bool{
		"127.0.0.1": true, "::ffff:127.0.0.1": true, "127.0.1.1": false, "169.254.20.10": true, "169.254.169.254": false, "fe80::1%eth0": true, "::1": false, "64:ff9b::7f00:1": true,
	} {
		if got := g.Check(netip.MustParseAddr(text)) == nil; got != want {
			t.Errorf("%s: reachable %v, want %v", text, got, want)
		}
	}
}

func TestDialling(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	var refused *outbound.RefusedError
	for _, host := range []string{"127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0", "::"} {
		if conn, err := (outbound.Guard{}).DialContext(t.Context(), "tcp", net.JoinHostPort(host, port)); !errors.As(err, &refused) {
			t.Errorf("%s: %v, %v", host, conn, err)
		} else if says := map[bool]string{true: "the host resolves to a ", false: "the host is a "}[host == "localhost"]; !strings.HasPrefix(refused.Error(), says) {
			t.Errorf("%s: %v", host, refused)
		}
	}
	for _, network := range []string{"unix", "udp", "ip4:icmp", ""} {
		if _, err := (outbound.Guard{}).DialContext(t.Context(), network, "/tmp/x"); !errors.As(err, &refused) {
			t.Errorf("network %q: %v", network, err)
		}
	}
	allowed := outbound.Guard{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	conn, err := allowed.DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// A name that resolves to a harmless address when somebody looks, and to a forbidden
// one when it is dialled, gets nowhere: what is checked is what is dialled.
func TestANameThatChangesItsMind(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var reached atomic.Int32
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			_ = conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	dns := newDNS(t, [4]byte{127, 0, 0, 2}, [4]byte{127, 0, 0, 1})
	g := outbound.Guard{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Resolver: dns.resolver()}
	address := net.JoinHostPort("users.example", port)
	var refused *outbound.RefusedError
	if _, err := g.DialContext(t.Context(), "tcp", address); errors.As(err, &refused) {
		t.Fatalf("the first answer is allowed, nobody listens there: %v", err)
	}
	for range 3 {
		if _, err := g.DialContext(t.Context(), "tcp", address); !errors.As(err, &refused) {
			t.Errorf("the second answer: %v", err)
		}
	}
	if reached.Load() != 0 {
		t.Error("the forbidden address was reached")
	}
	if dns.asked.Load() < 2 {
		t.Fatal("the resolver was not asked again: the test shows nothing")
	}
}

// dns answers every question for an IPv4 address with the next of its answers; the last
// one stays.
type dns struct {
	conn    net.PacketConn
	answers [][4]byte
	asked   atomic.Int32
}

func newDNS(t *testing.T, answers ...[4]byte) *dns {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dns{conn: conn, answers: answers}
	t.Cleanup(func() { _ = conn.Close() })
	go d.serve()
	return d
}

func (d *dns) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "udp", d.conn.LocalAddr().String())
	}}
}

func (d *dns) serve() {
	buffer := make([]byte, 1500)
	for {
		n, from, err := d.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		question, isA := parseQuestion(buffer[:n])
		if question == nil {
			continue
		}
		answer := append([]byte{}, buffer[:2]...)                   // the question's id
		answer = append(answer, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0) // a response without an error, one question
		answer = append(answer, question...)
		if isA {
			i := min(int(d.asked.Add(1)), len(d.answers)) - 1
			answer[7] = 1                                                   // and one answer
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // for the question's name: A, IN, no TTL
			answer = append(answer, d.answers[i][:]...)
		}
		_, _ = d.conn.WriteTo(answer, from)
	}
}

// parseQuestion returns the one question of a message (RFC 1035, section 4.1) and
// whether it is for an IPv4 address.
func parseQuestion(message []byte) (question []byte, isA bool) {
	const header = 12
	end := header
	for end < len(message) && message[end] != 0 {
		end += 1 + int(message[end])
	}
	end += 5 // the empty label, type and class
	if end > len(message) || message[5] != 1 {
		return nil, false
	}
	return message[header:end], message[end-4] == 0 && message[end-3] == 1
}
