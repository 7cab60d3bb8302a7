// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer/orders"
)

func (n *tenant) annotate(key, value string) {
	n.t.Helper()
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"annotations": {"`+key+`": "`+value+`"}}}`))
	if err := shared.admin.Patch(n.t.Context(), n.policy.DeepCopy(), patch); err != nil {
		n.t.Fatal(err)
	}
}

// ordered waits until the status says so about an order.
func (n *tenant) ordered(order api.RevocationOrder, state api.RevocationState, sessions int32) {
	n.t.Helper()
	eventually(n.t, string(order)+" is "+string(state), func() (bool, string) {
		policy := &api.TokenPolicy{}
		if err := shared.admin.Get(n.t.Context(), client.ObjectKeyFromObject(n.policy), policy); err != nil {
			return false, err.Error()
		}
		for _, r := range policy.Status.Revocations {
			if r.Order == order && r.State == state && r.Sessions == sessions {
				return true, ""
			}
		}
		return false, "it is not in the status"
	})
}

func TestAnAdministratorEndsSessions(t *testing.T) {
	n := newTenant(t)
	n.grant()
	n.users(func(data map[string][]byte) { data["carol"] = entry("") })
	one, two := startIssuer(t, n.clock), startIssuer(t, n.clock)
	n.serving(one)
	n.serving(two)
	alice, carol := n.login(one, "alice", rightPassword), n.login(two, "carol", rightPassword)
	events := n.listen(two)

	n.annotate(api.RevokeSubjectAnnotation, "alice")
	n.hear(events, n.verify(alice.token).SessionID)
	n.ordered(api.RevokeSubject, api.RevocationInProgress, 1)
	for _, i := range []*instance{one, two} {
		want(t, n.exchange(i, protocol.CallRefresh, alice.token), 403, token.SessionRevoked)
	}
	next := n.exchange(one, protocol.CallRefresh, carol.token)
	if next.status != 200 {
		t.Fatalf("somebody else's session: %s", next)
	}

	n.annotate(api.RevokeAllAnnotation, "now")
	n.ordered(api.RevokeAll, api.RevocationRefused, 0)
	eventually(t, "an Event tells that the order is refused", func() (bool, string) {
		var list eventsv1.EventList
		if err := shared.admin.List(t.Context(), &list, client.InNamespace(n.namespace)); err != nil {
			return false, err.Error()
		}
		for _, e := range list.Items {
			if e.Reason == string(orders.RevocationRefused) && e.Type == corev1.EventTypeWarning && strings.Contains(e.Note, "RFC 3339") {
				return true, ""
			}
		}
		return false, "there is none"
	})

	n.annotate(api.RevokeAllAnnotation, n.clock.Now().UTC().Format("2006-01-02T15:04:05Z"))
	n.hear(events, n.verify(carol.token).SessionID)
	want(t, n.exchange(two, protocol.CallRefresh, next.token), 403, token.SessionRevoked)
}
