// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(namespace, name, node string, ips ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName:       node,
			InitContainers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 18080}}}},
			Containers:     []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 5353, Protocol: corev1.ProtocolUDP}}}},
		},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return p
}

func policy(name string, rules ...networkingv1.NetworkPolicyIngressRule) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, Ingress: rules,
		},
	}
}

// admitted are the rules of the pod's chain, without those for itself and the end.
func admitted(t *testing.T, s State) []string {
	t.Helper()
	text := Ruleset("node-1", s)
	_, chain, found := strings.Cut(text, "\tchain to-shop {\n")
	if !found {
		return []string{"everything"}
	}
	chain, _, _ = strings.Cut(chain, "\t}\n")
	var rules []string
	for line := range strings.Lines(chain) {
		rules = append(rules, strings.TrimSpace(line))
	}
	if len(rules) < 4 || rules[len(rules)-1] != "drop" || rules[1] != "ip saddr 10.244.1.5 return" || rules[2] != "ip6 saddr fd98::5 return" {
		t.Fatalf("the chain is not closed, or a pod does not reach itself:\n%s", chain)
	}
	return rules[3 : len(rules)-1]
}

func TestWhatNetworkPoliciesAdmit(t *testing.T) {
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	number := func(n int) *intstr.IntOrString { return new(intstr.FromInt(n)) }
	named := func(n string) *intstr.IntOrString { return new(intstr.FromString(n)) }
	app := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	}
	type (
		rule  = networkingv1.NetworkPolicyIngressRule
		ports = []networkingv1.NetworkPolicyPort
		peers = []networkingv1.NetworkPolicyPeer
	)
	other := policy("b")
	other.Spec.PodSelector = *app("else")
	egress := policy("egress", rule{})
	egress.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	elsewhere := policy("elsewhere")
	elsewhere.Namespace = "bank"
	for name, test := range map[string]struct {
		policies []*networkingv1.NetworkPolicy
		want     []string
	}{
		"no policy":                            {nil, []string{"everything"}},
		"policies that do not select it":       {[]*networkingv1.NetworkPolicy{other, egress, elsewhere}, []string{"everything"}},
		"no rule":                              {[]*networkingv1.NetworkPolicy{policy("a")}, []string{}},
		"the sidecar's ports, from everywhere": {[]*networkingv1.NetworkPolicy{policy("a", rule{Ports: ports{{Protocol: &tcp, Port: number(18080)}, {Port: number(18081)}}})}, []string{"tcp dport 18080 return", "tcp dport 18081 return"}},
		"policies add up":                      {[]*networkingv1.NetworkPolicy{policy("b", rule{Ports: ports{{Port: number(2)}}}), policy("a", rule{Ports: ports{{Port: number(1)}}})}, []string{"tcp dport 1 return", "tcp dport 2 return"}},
		"everything":                           {[]*networkingv1.NetworkPolicy{policy("a", rule{})}, []string{"return"}},
		"ports by name, range and protocol": {
			[]*networkingv1.NetworkPolicy{policy("a", rule{Ports: ports{{Port: named("http")}, {Port: named("dns")}, {Protocol: &udp, Port: named("dns")}, {Port: number(10), EndPort: new(int32(20))}, {Protocol: &udp}}})},
			[]string{"tcp dport 18080 return", "udp dport 5353 return", "tcp dport 10-20 return", "meta l4proto udp return"},
		},
		"pods of the namespace": {[]*networkingv1.NetworkPolicy{policy("a", rule{From: peers{{PodSelector: app("web")}}})}, []string{"ip saddr { 10.244.2.7 } return"}},
		"pods of other namespaces": {
			[]*networkingv1.NetworkPolicy{policy("a", rule{From: peers{{NamespaceSelector: app("bank"), PodSelector: app("web")}}, Ports: ports{{Port: number(1)}}})},
			[]string{"ip saddr { 10.244.2.9 } tcp dport 1 return", "ip6 saddr { fd98::9 } tcp dport 1 return"},
		},
		"pods that are not there": {[]*networkingv1.NetworkPolicy{policy("a", rule{From: peers{{PodSelector: app("nobody")}}})}, []string{}},
		"addresses": {
			[]*networkingv1.NetworkPolicy{policy("a", rule{From: peers{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.244.0.0/16"}}}, {IPBlock: &networkingv1.IPBlock{CIDR: "fd00::/8"}}}})},
			[]string{"ip saddr 10.0.0.0/8 ip saddr != 10.244.0.0/16 return", "ip6 saddr fd00::/8 return"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			gone := pod("shop", "web", "node-2", "10.244.2.8")
			gone.Status.Phase = corev1.PodSucceeded
			s := State{
				Pods: []*corev1.Pod{
					pod("shop", "shop", "node-1", "10.244.1.5", "fd98::5"), gone,
					pod("shop", "web", "node-2", "10.244.2.7"), pod("bank", "web", "node-2", "10.244.2.9", "fd98::9"),
				},
				Namespaces: []*corev1.Namespace{
					{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
					{ObjectMeta: metav1.ObjectMeta{Name: "bank", Labels: map[string]string{"app": "bank"}}},
				},
				Policies: test.policies,
			}
			if diff := cmp.Diff(test.want, admitted(t, s)); diff != "" {
				t.Error(diff)
			}
			before := Ruleset("node-1", s)
			slices.Reverse(s.Pods)
			slices.Reverse(s.Policies)
			if after := Ruleset("node-1", s); after != before {
				t.Errorf("another order gives other rules:\n%s\n%s", before, after)
			}
			if text := Ruleset("node-2", s); strings.Contains(text, "10.244.1.5 : jump") {
				t.Errorf("another node closes the pod:\n%s", text)
			}
		})
	}
}
