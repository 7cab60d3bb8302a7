// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/controllers/internal/reach"
)

// lookForWays looks for ways round the sidecars, in the cache; it makes no request.
func (r *reconciler) lookForWays(ctx context.Context, s *scope) error {
	if len(s.running) == 0 {
		return nil
	}
	services := &corev1.ServiceList{}
	if err := r.client.List(ctx, services, client.InNamespace(s.policy.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list the Services of namespace %q: %w", s.policy.Namespace, err)
	}
	s.ways = waysPast(services.Items, s.running)
	return nil
}

// maxWays is how many ways a message names; of the others it says how many there are.
const maxWays = 5

// bypassable is the condition. A NetworkPolicy does not turn it false: that one is
// applied does not say that the network enforces it, and where it does, the Service
// that leads past the sidecar leads nowhere and is to be mended all the same. What
// connections to the application's port find, they find with the NetworkPolicy in place.
func bypassable(s *scope) metav1.Condition {
	policy, pods := s.policy, s.running
	condition := metav1.Condition{Type: api.ConditionBypassable, Status: metav1.ConditionFalse}
	enforced := policy.Spec.NetworkPolicy == api.NetworkPolicyEnforce
	name := owned.NetworkPolicyName(policy.Name)
	found, says := sayWays(s.ways), ""
	if found != "" && enforced {
		found += " Where the network enforces NetworkPolicies, " + name + " keeps callers from these ports."
	}
	if open := openOf(s.tried.Results); len(open) > 0 {
		says = sayOpen(open) + remedy(s)
	}
	before := meta.FindStatusCondition(policy.Status.Conditions, api.ConditionBypassable)
	switch {
	case s.tried.Pending && foundByTrying(before, found):
		// Pods are being replaced, or the manager has just started: what was found holds
		// until it is found out anew.
		condition.Status, condition.Reason, condition.Message = before.Status, before.Reason, before.Message
	case found != "" || says != "":
		condition.Status = metav1.ConditionTrue
		condition.Message = strings.TrimSpace(found + " " + says)
		switch {
		case len(s.ways) > 0 && s.ways[0].toApplication:
			condition.Reason = api.ReasonServicePastSidecar
		case says != "":
			condition.Reason = api.ReasonApplicationPortOpen
		default:
			condition.Reason = api.ReasonOtherPortServed
		}
	case len(pods) == 0:
		condition.Reason, condition.Message = api.ReasonNoPods, "no pod runs under this policy."
	case allRedirected(pods):
		condition.Reason, condition.Message = api.ReasonRedirected, "all pods have Redirect capture: whatever port a Service leads to, requests come to the sidecar."
	case len(s.tried.Results) > 0:
		condition.Reason = api.ReasonNoneFound
		condition.Message = "no Service of this namespace leads past the sidecar, and the manager's connections to the application's port were not accepted: " + sayClosed(s.tried.Results)
		if enforced {
			condition.Message += " NetworkPolicy " + name + " admits the sidecar's ports alone."
		} else {
			condition.Message += " Others may be admitted where the manager is not."
		}
	case enforced:
		condition.Reason = api.ReasonNoneFound
		condition.Message = "no Service of this namespace leads past the sidecar. Who dials a pod's own address is kept from other ports by NetworkPolicy " + name + ", where the network enforces NetworkPolicies."
	default:
		condition.Reason = api.ReasonNoneFound
		condition.Message = "no Service of this namespace leads past the sidecar. Who dials a pod's own address can still go past it: spec.networkPolicy: Enforce closes the other ports."
	}
	return condition
}

// foundByTrying: the condition says more than what Services lead to, found.
func foundByTrying(before *metav1.Condition, found string) bool {
	return before != nil && before.Status == metav1.ConditionTrue && strings.Contains(before.Message, acceptedConnection) &&
		(found != "" && strings.HasPrefix(before.Message, found) || found == "" && before.Reason == api.ReasonApplicationPortOpen)
}

func openOf(results []reach.Result) []reach.Result {
	var open []reach.Result
	for _, result := range results {
		if result.Outcome == reach.Open {
			open = append(open, result)
		}
	}
	return open
}

const acceptedConnection = "accepted a connection to its application's port"

func sayOpen(open []reach.Result) string {
	return sayAll(open, func(r reach.Result) string {
		addresses := make([]string, 0, len(r.Addresses))
		for _, address := range r.Addresses {
			addresses = append(addresses, address.String())
		}
		return fmt.Sprintf("pod %q %s %d at %s, past the sidecar", r.Pod, acceptedConnection, r.Port, strings.Join(addresses, " and "))
	})
}

// remedy goes on where [sayOpen] ends.
func remedy(s *scope) string {
	const always = "tokenward.io/capture: Redirect to the pods, or let the application listen on 127.0.0.1 alone."
	name := owned.NetworkPolicyName(s.policy.Name)
	switch {
	case s.policy.Spec.NetworkPolicy != api.NetworkPolicyEnforce:
		return ": write spec.networkPolicy: Enforce, add " + always
	case s.networkPolicy != nil:
		return ": see NetworkPolicyApplied, add " + always
	case !allSelected(s.running, s.policy.Name):
		return ", although NetworkPolicy " + name + " does not admit it: the pod may lack the labels by which that selects, the network does not enforce NetworkPolicies, or another one admits the manager. Add " + always
	default:
		return ", although NetworkPolicy " + name + " does not admit it: the network does not enforce NetworkPolicies, or another one admits the manager. Add " + always
	}
}

func sayClosed(results []reach.Result) string {
	return sayAll(results, func(r reach.Result) string {
		what := map[reach.Outcome]string{reach.Refused: "refused one", reach.Silent: "did not answer", reach.Unreachable: "could not be reached"}[r.Outcome]
		return fmt.Sprintf("pod %q %s at port %d", r.Pod, what, r.Port)
	}) + "."
}

func sayAll(results []reach.Result, say func(reach.Result) string) string {
	says := make([]string, 0, maxWays+1)
	for _, result := range results[:min(len(results), maxWays)] {
		says = append(says, say(result))
	}
	if more := len(results) - maxWays; more > 0 {
		says = append(says, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(says, "; ")
}

func allRedirected(pods []podFacts) bool {
	for _, pod := range pods {
		if pod.capture != api.CaptureRedirect {
			return false
		}
	}
	return true
}

func sayWays(ways []way) string {
	if len(ways) == 0 {
		return ""
	}
	says := make([]string, 0, maxWays+1)
	for _, w := range ways[:min(len(ways), maxWays)] {
		says = append(says, w.says)
	}
	if more := len(ways) - maxWays; more > 0 {
		says = append(says, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(says, "; ") + "."
}
