// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// remedies say what to do when a part of the network cannot be made.
const (
	needBridge   = "the kernel must have the device types bridge and veth"
	needNftables = "the kernel must have nf_tables with NAT (CONFIG_NF_TABLES, CONFIG_NFT_NAT)"
	needFilter   = "the kernel must have nf_tables with conntrack and maps (CONFIG_NFT_CT, CONFIG_NF_TABLES_INET)"
	needIPv6     = "the kernel must have IPv6 (it was started with ipv6.disable=1, perhaps)"
)

// setUpNetwork gives the node its address in the network of all nodes. That network is
// a bridge in the first one; the others wait for their cable.
func (n node) setUpNetwork(ctx context.Context, nodes int) error {
	if n.first() {
		if err := run(ctx, "ip", "link", "add", "lan", "type", "bridge"); err != nil {
			return fmt.Errorf("%w: %s", err, needBridge)
		}
	} else if err := until(ctx, time.Minute, func(context.Context) error {
		_, err := net.InterfaceByName("lan")
		return err
	}); err != nil {
		return fmt.Errorf("no cable from node-1: %w", err)
	}
	for _, step := range []struct {
		remedy string
		args   []string
	}{
		{"", []string{"ip", "link", "set", "lo", "up"}},
		{"", []string{"ip", "link", "set", "lan", "up"}},
		{"", []string{"ip", "address", "add", n.Address4() + "/24", "dev", "lan"}},
		{needIPv6, []string{"ip", "address", "add", n.Address6() + "/64", "dev", "lan", "nodad"}},
		// Nothing is there; but programs take the address of the default route for the node's.
		{"", []string{"ip", "route", "add", "default", "via", "198.51.100.254", "dev", "lan"}},
		{needIPv6, []string{"ip", "route", "add", "default", "via", "fd98:51::fe", "dev", "lan"}},
		// kube-proxy would only say this in its log.
		{needNftables, []string{"nft", "add table inet probe; add chain inet probe nat { type nat hook prerouting priority dstnat; }; delete table inet probe"}},
		// What NetworkPolicies become.
		{needFilter, []string{"nft", "add table inet probe; add chain inet probe to; add chain inet probe forward { type filter hook forward priority filter; }; " +
			"add rule inet probe forward ct state established accept; add rule inet probe forward ip6 daddr vmap { fd98:51::1 : jump to }; delete table inet probe"}},
	} {
		if err := run(ctx, step.args[0], step.args[1:]...); err != nil {
			if step.remedy != "" {
				err = fmt.Errorf("%w: %s", err, step.remedy)
			}
			return err
		}
	}
	for _, setting := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+setting, []byte("1"), 0); err != nil {
			return fmt.Errorf("%w: /proc/sys must be writable (in a container: run it privileged)", err)
		}
	}
	return n.routeToOthers(ctx, nodes)
}

// routeToOthers leads to the pods of the other nodes.
func (n node) routeToOthers(ctx context.Context, nodes int) error {
	var errs []error
	for number := range nodes {
		other := node{Number: number + 1}
		if other.Number == n.Number {
			continue
		}
		errs = append(errs,
			run(ctx, "ip", "route", "add", other.PodCIDR4(), "via", other.Address4()),
			run(ctx, "ip", "route", "add", other.PodCIDR6(), "via", other.Address6()))
	}
	return errors.Join(errs...)
}
