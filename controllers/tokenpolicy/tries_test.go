// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/reach"
)

func result(pod string, outcome reach.Outcome) reach.Result {
	return reach.Result{Pod: pod, Port: 8080, Outcome: outcome, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}
}

func TestBypassableSaysWhatTryingFound(t *testing.T) {
	selected := []podFacts{{labels: selectedLabels("shop"), injected: injected{capture: api.CapturePort, port: 8080}}}
	unlabelled := []podFacts{{injected: injected{capture: api.CapturePort, port: 8080}}}
	past, other := way{says: "past", toApplication: true}, way{says: "other"}
	open := result("a", reach.Open)
	byTrying := &metav1.Condition{
		Type: api.ConditionBypassable, Status: metav1.ConditionTrue, Reason: api.ReasonApplicationPortOpen,
		Message: `pod "old" accepted a connection to its application's port 8080.`,
	}
	many := make([]reach.Result, 8)
	for i := range many {
		many[i] = result(strings.Repeat("x", 253), reach.Open)
	}
	for name, test := range map[string]struct {
		mode    api.NetworkPolicyMode
		pods    []podFacts
		ways    []way
		tried   reach.Findings
		refused *refusal
		before  *metav1.Condition
		status  metav1.ConditionStatus
		reason  string
		says    []string
		not     string
	}{
		"open": {
			pods: selected, tried: reach.Findings{Results: []reach.Result{open}}, status: "True", reason: api.ReasonApplicationPortOpen,
			says: []string{`pod "a" accepted a connection to its application's port 8080 at 10.0.0.1 and fd00::1, past the sidecar: write spec.networkPolicy: Enforce, add tokenward.io/capture: Redirect`, "127.0.0.1"},
		},
		"open although it is closed": {
			mode: api.NetworkPolicyEnforce, pods: selected, tried: reach.Findings{Results: []reach.Result{open}}, status: "True", reason: api.ReasonApplicationPortOpen,
			says: []string{"although NetworkPolicy tokenward-shop does not admit it: the network does not enforce NetworkPolicies, or another one admits the manager."}, not: "lack the labels",
		},
		"open, as the NetworkPolicy does not select it": {
			mode: api.NetworkPolicyEnforce, pods: unlabelled, tried: reach.Findings{Results: []reach.Result{open}}, status: "True", reason: api.ReasonApplicationPortOpen,
			says: []string{"the pod may lack the labels"},
		},
		"open, as the NetworkPolicy is not ours": {
			mode: api.NetworkPolicyEnforce, pods: selected, refused: &refusal{}, tried: reach.Findings{Results: []reach.Result{open}}, status: "True", reason: api.ReasonApplicationPortOpen,
			says: []string{"see NetworkPolicyApplied"}, not: "does not enforce",
		},
		"one of two is open": {
			pods: selected, tried: reach.Findings{Results: []reach.Result{result("b", reach.Refused), open}}, status: "True", reason: api.ReasonApplicationPortOpen,
			says: []string{`pod "a"`}, not: `pod "b"`,
		},
		"closed by the network": {
			mode: api.NetworkPolicyEnforce, pods: selected, tried: reach.Findings{Results: []reach.Result{result("a", reach.Silent)}}, status: "False", reason: api.ReasonNoneFound,
			says: []string{`pod "a" did not answer at port 8080. NetworkPolicy tokenward-shop admits`},
		},
		"closed by the application": {
			pods: selected, tried: reach.Findings{Results: []reach.Result{result("a", reach.Refused), result("b", reach.Unreachable)}}, status: "False", reason: api.ReasonNoneFound,
			says: []string{`pod "a" refused one at port 8080; pod "b" could not be reached at port 8080. Others may be admitted where the manager is not.`},
		},
		"a Service past it as well": {
			pods: selected, ways: []way{past}, tried: reach.Findings{Results: []reach.Result{open}}, status: "True", reason: api.ReasonServicePastSidecar,
			says: []string{"past. pod \"a\" accepted"},
		},
		"a Service to another port, and it is open": {
			pods: selected, ways: []way{other}, tried: reach.Findings{Results: []reach.Result{open}}, status: "True", reason: api.ReasonApplicationPortOpen,
			says: []string{"other. pod \"a\" accepted"},
		},
		"new pods that were not tried yet": {
			pods: selected, tried: reach.Findings{Pending: true}, before: byTrying, status: "True", reason: api.ReasonApplicationPortOpen, says: []string{`pod "old"`},
		},
		"pods that cannot be tried at all": {
			pods: selected, before: byTrying, status: "False", reason: api.ReasonNoneFound,
		},
		"a Service is mended, and new pods were not tried yet": {
			pods: selected, tried: reach.Findings{Pending: true}, status: "False", reason: api.ReasonNoneFound,
			before: &metav1.Condition{Type: api.ConditionBypassable, Status: metav1.ConditionTrue, Reason: api.ReasonServicePastSidecar, Message: "past."},
		},
		"more than a message can hold": {
			pods: selected, tried: reach.Findings{Results: many}, status: "True", reason: api.ReasonApplicationPortOpen, says: []string{"; and 3 more"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: api.TokenPolicySpec{NetworkPolicy: test.mode}}
			if test.before != nil {
				policy.Status.Conditions = []metav1.Condition{*test.before}
			}
			got := bypassable(&scope{policy: policy, running: test.pods, ways: test.ways, tried: test.tried, networkPolicy: test.refused})
			if got.Status != test.status || got.Reason != test.reason || got.Message == "" || len(got.Message) > 3000 {
				t.Errorf("%+v", got)
			}
			for _, part := range test.says {
				if !strings.Contains(got.Message, part) {
					t.Errorf("the message does not say %q: %s", part, got.Message)
				}
			}
			if test.not != "" && strings.Contains(got.Message, test.not) {
				t.Errorf("the message says %q: %s", test.not, got.Message)
			}
		})
	}
}

func TestWhichWorkloadsAreTried(t *testing.T) {
	pods := []podFacts{
		{name: "b", workload: "1", injected: injected{capture: api.CapturePort, port: 8080}},
		{name: "a", workload: "1", injected: injected{capture: api.CapturePort, port: 8080}},
		{name: "c", workload: "1", injected: injected{capture: api.CapturePort, port: 9090}},
		{name: "redirected", workload: "2", injected: injected{capture: api.CaptureRedirect, port: 8080}},
		{name: "of an unknown release", workload: "3"},
	}
	want := []reach.Target{{Workload: "1", Port: 8080, Pods: []string{"a", "b"}}, {Workload: "1", Port: 9090, Pods: []string{"c"}}}
	if diff := cmp.Diff(want, targets(pods)); diff != "" {
		t.Error(diff)
	}
	for i := range 100 {
		pods = append(pods, podFacts{name: "x", workload: fmt.Sprint("x", i), injected: injected{capture: api.CapturePort, port: 8080}})
	}
	if got := targets(pods); len(got) != maxTargets {
		t.Errorf("%d workloads of one policy are tried", len(got))
	}
}

// Somebody else's pod must not be connected to, whatever the cache said a moment ago.
func TestWhichPodsMayBeTried(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"a pod as the webhook made it":  {func(*corev1.Pod) {}, true},
		"one that is not ready":         {func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, false},
		"one that is ready since now":   {func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now) }, false},
		"one on its way out":            {func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.NewTime(now)) }, false},
		"one in the network of a node":  {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, false},
		"one without our label":         {func(p *corev1.Pod) { delete(p.Labels, api.InjectedLabel) }, false},
		"one under another policy":      {func(p *corev1.Pod) { p.Annotations[api.PolicyAnnotation] = "other" }, false},
		"one with another port":         {func(p *corev1.Pod) { p.Annotations[api.StatusAnnotation] = `{"capture":"Port","port":22}` }, false},
		"one under Redirect":            {func(p *corev1.Pod) { p.Annotations[api.StatusAnnotation] = `{"capture":"Redirect","port":8080}` }, false},
		"one that says nothing of ours": {func(p *corev1.Pod) { p.Annotations[api.StatusAnnotation] = "{" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					UID: "1", Labels: map[string]string{api.InjectedLabel: "true"},
					Annotations: map[string]string{api.PolicyAnnotation: "shop", api.StatusAnnotation: `{"capture":"Port","port":8080}`},
				},
				Status: corev1.PodStatus{
					Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Minute))}},
					PodIPs:     []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}},
				},
			}
			test.change(pod)
			got := triable(pod, "shop", 8080, now.Add(-30*time.Second))
			if (got != nil) != test.want || got != nil && len(got.Addresses) != 2 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// The whole way, with a pod that only says that it runs: found open, closed by a
// NetworkPolicy, and told once each.
func TestAnOpenPortIsFoundByTrying(t *testing.T) {
	w := newWorld(t)
	w.stop()
	var closed atomic.Bool
	w.tries = func(_ context.Context, _, address string) (net.Conn, error) {
		if address != "192.0.2.7:8080" || closed.Load() {
			return nil, syscall.ECONNREFUSED
		}
		client, _ := net.Pipe()
		return client, nil
	}
	w.start()
	w.key("shop")
	policy := w.policy("shop", "shop")
	w.service("right", "shop", intstr.FromString("http"))
	pod := w.injectedPod("a", "shop", "shop")
	w.condition(policy, api.ConditionBypassable, api.ReasonNoneFound)
	w.changeStatus(pod, func() {
		pod.Status.Phase = corev1.PodRunning
		pod.Status.PodIPs = []corev1.PodIP{{IP: "192.0.2.7"}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now().Add(-time.Minute))}}
	})
	open := w.condition(policy, api.ConditionBypassable, api.ReasonApplicationPortOpen)
	if open.Status != metav1.ConditionTrue || !strings.Contains(open.Message, `pod "a"`) || !strings.Contains(open.Message, "port 8080") {
		t.Errorf("%+v", open)
	}
	w.event(policy, api.ConditionBypassable, corev1.EventTypeWarning)

	// A restart knows nothing for a while, and says the same.
	w.requests.Quiet(t, 3*countDelay)
	w.stop()
	w.start()
	w.requests.Quiet(t, 10*countDelay)
	if writes := w.requests.Writes(); len(writes) != 0 {
		t.Errorf("a restart writes, although nothing changed: %v", writes)
	}

	closed.Store(true)
	w.change(policy, func() { policy.Spec.NetworkPolicy = api.NetworkPolicyEnforce })
	if got := w.condition(policy, api.ConditionBypassable, api.ReasonNoneFound); !strings.Contains(got.Message, "refused one at port 8080") {
		t.Errorf("%+v", got)
	}
}
