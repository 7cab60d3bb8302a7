// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package reach tries whether the application's port of a pod can be reached past its
// sidecar: it connects from where the manager is, sends nothing, and closes (ADR 0023).
// It owns when who is tried, at a bounded rate in all, and remembers what came of it. Which
// pods are worth trying, and what the results mean, is left to its callers.
package reach

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"k8s.io/apimachinery/pkg/types"
)

// Outcome is what became of an attempt to connect. A closed set.
type Outcome string

const (
	// Open means that a connection was made.
	Open Outcome = "open"
	// Refused means that the pod, or what stands before it, said no. Nothing listens there,
	// or not on the pod's own address.
	Refused Outcome = "refused"
	// Silent means that there was no answer within [Timeout], as when a network drops what a
	// NetworkPolicy does not admit.
	Silent Outcome = "silent"
	// Unreachable means that there is no way there.
	Unreachable Outcome = "unreachable"
)

// Target is a workload whose pods are all alike, one of which is tried.
type Target struct {
	// Workload is the UID of what controls the pods, or of the pod that nothing controls.
	Workload string
	// Port is the application's.
	Port int32
	// Pods are the names of pods of the workload.
	Pods []string
}

type targetKey struct {
	workload string
	port     int32
}

func (t Target) key() targetKey { return targetKey{t.Workload, t.Port} }

// Result is what came of the last attempt at a target.
type Result struct {
	Pod  string
	Port int32
	// Outcome is the worst of the pod's addresses: one that is open counts.
	Outcome Outcome
	// Addresses are those with that outcome.
	Addresses []netip.Addr
}

func (r Result) equal(other Result) bool {
	return r.Pod == other.Pod && r.Port == other.Port && r.Outcome == other.Outcome && slices.Equal(r.Addresses, other.Addresses)
}

// Pod is a pod that can be tried.
type Pod struct {
	UID       string
	Addresses []netip.Addr
}

// Lookup finds a pod of the policy's namespace by its name, as it is now; nil when it is
// none of the policy's with that port, or cannot be tried yet.
type Lookup func(ctx context.Context, policy types.NamespacedName, name string, port int32) (*Pod, error)

// Dial is like [net.Dialer.DialContext].
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// connect tries one address, and sends nothing.
func connect(ctx context.Context, dial Dial, address netip.AddrPort) (Outcome, bool) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", address.String())
	if err == nil {
		_ = conn.Close()
		return Open, true
	}
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return Refused, true
	case isNet && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return Silent, true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return Unreachable, true
	default: // an address that is not to be dialled, no descriptor left, …: it says nothing
		return "", false
	}
}

// worst of the outcomes counts, in this order.
func worst(outcomes map[netip.Addr]Outcome, addresses []netip.Addr) (Outcome, []netip.Addr) {
	for _, outcome := range []Outcome{Open, Refused, Silent, Unreachable} {
		var with []netip.Addr
		for _, address := range addresses {
			if outcomes[address] == outcome {
				with = append(with, address)
			}
		}
		if len(with) > 0 {
			return outcome, with
		}
	}
	return "", nil
}
