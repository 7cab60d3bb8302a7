// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/reach"
)

// setUpTries has the leader try ports, and returns where it says which policies have to
// say something else now.
func (r *reconciler) setUpTries(mgr ctrl.Manager) (<-chan event.GenericEvent, error) {
	found := make(chan event.GenericEvent)
	r.tries = &reach.Tries{
		Lookup: r.lookupPod, Dial: r.options.Dial, Settle: r.options.TrySettle,
		Changed: func(ctx context.Context, name types.NamespacedName) {
			policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
			select {
			case found <- event.GenericEvent{Object: policy}:
			case <-ctx.Done():
			}
		},
	}
	if r.options.TriesPerMinute <= 0 {
		return found, nil
	}
	counter, err := newTryCounter()
	if err != nil {
		return nil, err
	}
	r.tries.Every = time.Minute / time.Duration(r.options.TriesPerMinute)
	r.tries.Count = func(outcome reach.Outcome) { counter.WithLabelValues(string(outcome)).Inc() }
	if err := mgr.Add(r.tries); err != nil {
		return nil, fmt.Errorf("set up trying the ports of applications: %w", err)
	}
	return found, nil
}

// tryPorts says what is to be tried, and takes what is known; it waits for nothing.
func (r *reconciler) tryPorts(_ context.Context, s *scope) error {
	if r.options.TriesPerMinute <= 0 {
		return nil
	}
	network := string(api.NetworkPolicyNone)
	if s.policy.Spec.NetworkPolicy == api.NetworkPolicyEnforce && s.networkPolicy == nil {
		network = string(api.NetworkPolicyEnforce)
	}
	s.tried = r.tries.Want(client.ObjectKeyFromObject(s.policy), network, targets(s.running))
	return nil
}

// maxTargets is how many workloads of a policy are tried.
const maxTargets = 8

// targets are the workloads to try. Under Redirect a connection leads to the sidecar and
// says nothing.
func targets(pods []podFacts) []reach.Target {
	type kind struct {
		workload string
		port     int32
	}
	byKind := map[kind][]string{}
	for _, pod := range pods {
		if pod.capture == api.CapturePort && pod.port > 0 && pod.port <= 65535 {
			of := kind{pod.workload, pod.port}
			byKind[of] = append(byKind[of], pod.name)
		}
	}
	all := make([]reach.Target, 0, len(byKind))
	for of, names := range byKind {
		slices.Sort(names)
		all = append(all, reach.Target{Workload: of.workload, Port: of.port, Pods: names})
	}
	slices.SortFunc(all, func(a, b reach.Target) int {
		return cmp.Or(strings.Compare(a.Workload, b.Workload), cmp.Compare(a.Port, b.Port))
	})
	return all[:min(len(all), maxTargets)]
}

// lookupPod reads the pod as it is now. It is a list of one, for which the permission to
// list is enough.
func (r *reconciler) lookupPod(ctx context.Context, policy types.NamespacedName, name string, port int32) (*reach.Pod, error) {
	pods := &corev1.PodList{}
	if err := r.live.List(ctx, pods, client.InNamespace(policy.Namespace), client.MatchingFields{"metadata.name": name}); err != nil {
		return nil, fmt.Errorf("get pod %q: %w", name, err)
	}
	for i := range pods.Items {
		return triable(&pods.Items[i], policy.Name, port, time.Now().Add(-r.options.TrySettle)), nil
	}
	return nil, nil //nolint:nilnil // it is gone, which is no error
}

// triable is the pod if the webhook has injected it for the policy, before this port and
// under Port capture, and if it was ready at the time before; else nil.
func triable(pod *corev1.Pod, policy string, port int32, before time.Time) *reach.Pod {
	has := injectedInto(pod.Annotations[api.StatusAnnotation])
	if pod.DeletionTimestamp != nil || pod.Spec.HostNetwork || pod.Labels[api.InjectedLabel] != "true" ||
		pod.Annotations[api.PolicyAnnotation] != policy || has.capture != api.CapturePort || has.port != port {
		return nil
	}
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.After(before)
	})
	if !ready {
		return nil
	}
	found := &reach.Pod{UID: string(pod.UID)}
	for _, ip := range pod.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil {
			found.Addresses = append(found.Addresses, address)
		}
	}
	return found
}
