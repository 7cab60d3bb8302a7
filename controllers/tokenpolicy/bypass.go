// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
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
// that leads past the sidecar leads nowhere and is to be mended all the same.
func bypassable(policy *api.TokenPolicy, pods []podFacts, ways []way) metav1.Condition {
	condition := metav1.Condition{Type: api.ConditionBypassable, Status: metav1.ConditionFalse}
	enforced := policy.Spec.NetworkPolicy == api.NetworkPolicyEnforce
	name := owned.NetworkPolicyName(policy.Name)
	switch {
	case len(ways) > 0:
		condition.Status, condition.Reason = metav1.ConditionTrue, api.ReasonOtherPortServed
		if ways[0].toApplication {
			condition.Reason = api.ReasonServicePastSidecar
		}
		condition.Message = sayWays(ways)
		if enforced {
			condition.Message += " Where the network enforces NetworkPolicies, " + name + " keeps callers from these ports."
		}
	case len(pods) == 0:
		condition.Reason, condition.Message = api.ReasonNoPods, "no pod runs under this policy."
	case allRedirected(pods):
		condition.Reason, condition.Message = api.ReasonRedirected, "all pods have Redirect capture: whatever port a Service leads to, requests come to the sidecar."
	case enforced:
		condition.Reason = api.ReasonNoneFound
		condition.Message = "no Service of this namespace leads past the sidecar. Who dials a pod's own address is kept from other ports by NetworkPolicy " + name + ", where the network enforces NetworkPolicies."
	default:
		condition.Reason = api.ReasonNoneFound
		condition.Message = "no Service of this namespace leads past the sidecar. Who dials a pod's own address can still go past it: spec.networkPolicy: Enforce closes the other ports."
	}
	return condition
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
	says := make([]string, 0, maxWays+1)
	for _, w := range ways[:min(len(ways), maxWays)] {
		says = append(says, w.says)
	}
	if more := len(ways) - maxWays; more > 0 {
		says = append(says, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(says, "; ") + "."
}
