// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policies makes a node of hack/cluster enforce NetworkPolicies: what may come to
// its pods, for IPv4 and IPv6, by nftables. It is there so that tests see a network that
// enforces them, and it is no network for anything else: egress rules are not enforced,
// which it says in its log.
//
// Why ours: what others have made needs the kernel's queue expression of nftables, which
// kernels of small machines lack, or ipset and iptables beside nftables, and is many
// times the size of all of hack/cluster.
package policies

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// State is what the API server says.
type State struct {
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
	Policies   []*networkingv1.NetworkPolicy
}

// Table is the nftables table, of the family inet, that holds everything.
const Table = "network-policies"

// Ruleset is what nft reads: it replaces the table in one transaction. It is a pure
// function, and the same state gives the same text, whatever its order.
//
// Packets come by in the hook forward, where Services are resolved already and sources are
// not yet hidden. What the node itself sends does not, and always gets through, as
// Kubernetes wants it: probes are from there.
func Ruleset(node string, s State) string {
	var chains strings.Builder
	jumps := map[string][]string{} // by the word for the family
	for _, pod := range s.pods() {
		if pod.Spec.NodeName != node {
			continue
		}
		selecting := s.selecting(pod)
		if len(selecting) == 0 {
			continue
		}
		chain := fmt.Sprintf("to-%s", pod.UID)
		fmt.Fprintf(&chains, "\tchain %s {\n\t\tcomment %q\n", chain, pod.Namespace+"/"+pod.Name)
		rule := func(words ...string) {
			words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
			fmt.Fprintf(&chains, "\t\t%s\n", strings.Join(append(words, "return"), " "))
		}
		for _, ip := range addresses(pod) {
			jumps[family(ip)] = append(jumps[family(ip)], fmt.Sprintf("%s : jump %s", ip, chain))
			rule(family(ip), "saddr", ip.String()) // a pod reaches itself
		}
		for _, policy := range selecting {
			for _, ingress := range policy.Spec.Ingress {
				for _, from := range s.sources(policy.Namespace, ingress.From) {
					for _, port := range ports(pod, ingress.Ports) {
						rule(from, port)
					}
				}
			}
		}
		chains.WriteString("\t\tdrop\n\t}\n")
	}
	var text strings.Builder
	fmt.Fprintf(&text, "add table inet %[1]s\ndelete table inet %[1]s\ntable inet %[1]s {\n%[2]s", Table, chains.String())
	text.WriteString("\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tct state established,related accept\n")
	for _, f := range []string{"ip", "ip6"} {
		if len(jumps[f]) > 0 {
			fmt.Fprintf(&text, "\t\t%s daddr vmap { %s }\n", f, strings.Join(jumps[f], ", "))
		}
	}
	text.WriteString("\t}\n}\n")
	return text.String()
}

// pods are those that have an address of their own, in a fixed order.
func (s State) pods() []*corev1.Pod {
	var all []*corev1.Pod
	for _, pod := range s.Pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if !pod.Spec.HostNetwork && !ended && len(addresses(pod)) > 0 {
			all = append(all, pod)
		}
	}
	slices.SortFunc(all, func(a, b *corev1.Pod) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return all
}

func addresses(pod *corev1.Pod) []netip.Addr {
	var all []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		if parsed, err := netip.ParseAddr(ip.IP); err == nil {
			all = append(all, parsed)
		}
	}
	return all
}

// family is the word of nftables for the address's.
func family(ip netip.Addr) string {
	if ip.Is4() {
		return "ip"
	}
	return "ip6"
}

// selecting are the policies that say what may come to the pod; none lets in everything.
func (s State) selecting(pod *corev1.Pod) []*networkingv1.NetworkPolicy {
	var all []*networkingv1.NetworkPolicy
	for _, policy := range s.Policies {
		if policy.Namespace == pod.Namespace && slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) &&
			matches(&policy.Spec.PodSelector, pod.Labels) {
			all = append(all, policy)
		}
	}
	slices.SortFunc(all, func(a, b *networkingv1.NetworkPolicy) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// matches takes a selector that nobody can read, which the API server does not let
// through, for one that selects nothing.
func matches(selector *metav1.LabelSelector, has map[string]string) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(has))
}

// sources are expressions, one of which must hold; the empty one always does.
func (s State) sources(namespace string, peers []networkingv1.NetworkPolicyPeer) []string {
	if len(peers) == 0 {
		return []string{""}
	}
	var all []string
	members := map[string][]string{}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			all = append(all, block(peer.IPBlock))
			continue
		}
		for _, pod := range s.pods() {
			if s.isPeer(namespace, peer, pod) {
				for _, ip := range addresses(pod) {
					members[family(ip)] = append(members[family(ip)], ip.String())
				}
			}
		}
	}
	for _, f := range []string{"ip", "ip6"} {
		if len(members[f]) > 0 {
			slices.Sort(members[f])
			all = append(all, fmt.Sprintf("%s saddr { %s }", f, strings.Join(slices.Compact(members[f]), ", ")))
		}
	}
	return all
}

func (s State) isPeer(namespace string, peer networkingv1.NetworkPolicyPeer, pod *corev1.Pod) bool {
	if peer.PodSelector != nil && !matches(peer.PodSelector, pod.Labels) {
		return false
	}
	if peer.NamespaceSelector == nil {
		return pod.Namespace == namespace
	}
	return slices.ContainsFunc(s.Namespaces, func(n *corev1.Namespace) bool {
		return n.Name == pod.Namespace && matches(peer.NamespaceSelector, n.Labels)
	})
}

func block(b *networkingv1.IPBlock) string {
	prefix, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return "ip saddr 0.0.0.0" // the API server lets none through
	}
	word := family(prefix.Addr())
	words := []string{word, "saddr", prefix.Masked().String()}
	for _, except := range b.Except {
		words = append(words, word, "saddr", "!=", except)
	}
	return strings.Join(words, " ")
}

// ports are expressions, one of which must hold; the empty one always does.
func ports(pod *corev1.Pod, wanted []networkingv1.NetworkPolicyPort) []string {
	if len(wanted) == 0 {
		return []string{""}
	}
	var all []string
	for _, w := range wanted {
		protocol := corev1.ProtocolTCP
		if w.Protocol != nil {
			protocol = *w.Protocol
		}
		word := strings.ToLower(string(protocol))
		switch {
		case w.Port == nil:
			all = append(all, "meta l4proto "+word)
		case w.EndPort != nil:
			all = append(all, fmt.Sprintf("%s dport %d-%d", word, w.Port.IntVal, *w.EndPort))
		case w.Port.Type == intstr.Int:
			all = append(all, fmt.Sprintf("%s dport %d", word, w.Port.IntVal))
		default:
			for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				for _, p := range c.Ports {
					if p.Name == w.Port.StrVal && cmp.Or(p.Protocol, corev1.ProtocolTCP) == protocol {
						all = append(all, fmt.Sprintf("%s dport %d", word, p.ContainerPort))
					}
				}
			}
		}
	}
	return all
}
