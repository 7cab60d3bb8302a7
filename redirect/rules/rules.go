// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package rules sets the packet filter rules of Redirect capture (design section 6) in
// the network namespace of the process. It owns the table "tokenward" of IPv4 and
// IPv6 there, and touches no other. As nft would show the table:
//
//	table ip tokenward {
//		chain redirect {
//			type nat hook prerouting priority dstnat; policy accept;
//			iifname != "lo" tcp dport 8080 redirect to :18080
//		}
//		chain guard {
//			type filter hook input priority filter; policy accept;
//			iifname != "lo" tcp dport 8080 ct state != established,related drop
//			iifname != "lo" udp dport 8080 ct state != established,related drop
//		}
//	}
//
// The first chain does the work. The second closes what it cannot see: NAT looks at the
// first packet of a connection that conntrack knows, and lets all else pass; and HTTP/3
// comes over UDP, which the sidecar does not speak. Answers to what the application
// itself has asked from that port pass. Loopback is left alone: the sidecar reaches the
// application there.
package rules

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// Redirect is what is led where.
type Redirect struct {
	// Port is the application's.
	Port uint16
	// To is the sidecar's.
	To uint16
}

const tableName = "tokenward"

// Install sets the rules of both families at once, or none. It replaces what an
// earlier run has set, without a moment in between.
func Install(r Redirect) error {
	conn, err := nftables.New()
	if err != nil {
		return explain(err)
	}
	for _, family := range families("/proc/net/if_inet6") {
		r.add(conn, family)
	}
	if err := conn.Flush(); err != nil {
		return explain(err)
	}
	return nil
}

// families leaves IPv6 out where the kernel runs without it: no packet comes that way.
func families(inet6 string) []nftables.TableFamily {
	if _, err := os.Stat(inet6); errors.Is(err, os.ErrNotExist) {
		return []nftables.TableFamily{nftables.TableFamilyIPv4}
	}
	return []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}
}

func (r Redirect) add(conn *nftables.Conn, family nftables.TableFamily) {
	table := &nftables.Table{Family: family, Name: tableName}
	// A table can be deleted only if it is there, hence the first line.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)

	accept := nftables.ChainPolicyAccept
	redirect := conn.AddChain(&nftables.Chain{
		Name: "redirect", Table: table, Type: nftables.ChainTypeNAT, Policy: &accept,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: redirect, Exprs: append(
		r.toPort(syscall.IPPROTO_TCP),
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(r.To)},
		&expr.Redir{RegisterProtoMin: 1},
	)})

	guard := conn.AddChain(&nftables.Chain{
		Name: "guard", Table: table, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	for _, protocol := range []byte{syscall.IPPROTO_TCP, syscall.IPPROTO_UDP} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: guard, Exprs: append(
			append(r.toPort(protocol), unlessEstablished()...),
			&expr.Verdict{Kind: expr.VerdictDrop},
		)})
	}
}

// toPort matches packets of a protocol that come to the application's port from outside.
func (r Redirect) toPort(protocol byte) []expr.Any {
	loopback := make([]byte, 16) // IFNAMSIZ
	copy(loopback, "lo")
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: loopback},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		// The destination port is the second field of both TCP and UDP.
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(r.Port)},
	}
}

// unlessEstablished matches what belongs to no connection that exists; a packet that
// conntrack does not follow has the state "untracked".
func unlessEstablished() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
			Xor:  binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}

// explain says what to do. It is what a person reads in the status of a pod that does
// not start.
func explain(err error) error {
	const otherwise = ", or use the pod annotation tokenward.io/capture=Port"
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("the rules of capture Redirect need the capability NET_ADMIN, and this container does not have it: "+
			"let the cluster's policies and the container runtime leave it to the init container tokenward-redirect%s: %w", otherwise, err)
	case errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("the node's kernel lacks what capture Redirect needs, nftables with NAT: "+
			"load its modules nf_tables, nft_chain_nat, nft_redir and nft_ct on the node%s: %w", otherwise, err)
	}
	return fmt.Errorf("set the rules of capture Redirect: %w", err)
}
