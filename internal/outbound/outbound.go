// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package outbound owns the rule where the issuer may connect to on behalf of a
// policy, and the manager to try the port of a pod (ADR 0023). Who writes a policy names
// hosts, and must not get at what only our pods can reach: their own ports, their node,
// the cloud's metadata service (threat model row 26).
//
// The address is checked when it is dialled, after the name was resolved, so that a
// name that resolves differently the second time changes nothing. What is spoken over
// the connection is none of its business.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	keepAlive   = 30 * time.Second
)

// Guard dials. The zero value refuses every address that is not a plain unicast
// address of another machine; private ranges are reachable, because that is where
// databases are.
type Guard struct {
	// Allowed ranges are reachable although they would be refused. The operator's
	// administrator sets them, never a policy.
	Allowed []netip.Prefix
	// Resolver is the system's when nil.
	Resolver *net.Resolver
}

// RefusedError says that an address may not be reached.
type RefusedError struct {
	// Kind of address, such as "loopback". A closed set.
	Kind string
	// Literal says that the address itself was asked for, and no name.
	Literal bool
}

// Error does not tell the address: what a name inside the cluster resolves to is not
// the policy author's to know.
func (e *RefusedError) Error() string {
	verb := "resolves to"
	if e.Literal {
		verb = "is"
	}
	return fmt.Sprintf("the host %s a %s address, which policies may not reach", verb, e.Kind)
}

// DialContext is like [net.Dialer.DialContext]. It takes TCP only, since a Unix
// socket is always the issuer's own. An address that may not be reached is a
// [*RefusedError] in the chain.
func (g Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &RefusedError{Kind: "local socket"}
	}
	host, _, _ := net.SplitHostPort(address)
	_, notLiteral := netip.ParseAddr(host)
	dialer := net.Dialer{
		Timeout: dialTimeout, KeepAlive: keepAlive, Resolver: g.Resolver,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			target, err := netip.ParseAddrPort(address)
			if err != nil {
				return &RefusedError{Kind: "malformed"}
			}
			err = g.Check(target.Addr())
			if refused, ok := errors.AsType[*RefusedError](err); ok {
				refused.Literal = notLiteral == nil
			}
			return err
		},
	}
	return dialer.DialContext(ctx, network, address)
}

// Check returns nil or a [*RefusedError].
func (g Guard) Check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if slices.ContainsFunc(g.Allowed, func(p netip.Prefix) bool { return contains(p, addr) }) {
		return nil
	}
	if embedded, ok := embeddedIPv4(addr); ok {
		return g.Check(embedded)
	}
	if kind := refused(addr); kind != "" {
		return &RefusedError{Kind: kind}
	}
	return nil
}

// contains takes ranges that are written in the IPv4-mapped form too.
func contains(p netip.Prefix, addr netip.Addr) bool {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Contains(addr)
}

func refused(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "malformed"
	case addr.IsUnspecified():
		return "unspecified"
	case addr.IsLoopback():
		return "loopback"
	case addr.IsMulticast():
		return "multicast"
	}
	for _, r := range ranges() {
		if r.prefix.Contains(addr) {
			return r.kind
		}
	}
	return ""
}

type reserved struct {
	prefix netip.Prefix
	kind   string
}

// ranges that are not reached, from the IANA special-purpose registries (RFC 6890)
// and the documents of the clouds. Metadata services outside the link-local ranges
// have addresses that would otherwise look like any other.
func ranges() []reserved {
	return []reserved{
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("100.100.100.200/32"), "metadata"},
		{netip.MustParsePrefix("168.63.129.16/32"), "metadata"},
		{netip.MustParsePrefix("192.0.0.192/32"), "metadata"},
		{netip.MustParsePrefix("fd00:ec2::/32"), "metadata"},
		{netip.MustParsePrefix("fd20:ce::254/128"), "metadata"},
		{netip.MustParsePrefix("0.0.0.0/8"), "reserved"},
		{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
		{netip.MustParsePrefix("::/96"), "reserved"},
		{netip.MustParsePrefix("fec0::/10"), "reserved"},
		{netip.MustParsePrefix("2001::/32"), "reserved"}, // Teredo: leads to an IPv4 address of the sender's choice
	}
}

// embeddedIPv4 is where a translator (NAT64, RFC 6052 and 8215) or 6to4 (RFC 3056)
// would lead the connection.
func embeddedIPv4(addr netip.Addr) (netip.Addr, bool) {
	if !addr.Is6() {
		return netip.Addr{}, false
	}
	b := addr.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(addr), netip.MustParsePrefix("64:ff9b:1::/48").Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case netip.MustParsePrefix("2002::/16").Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}
