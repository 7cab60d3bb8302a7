// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer"
)

// A pod that is deleted without a grace period loses its identity before its process
// ends. What the process still serves until then must be asked of another issuer, and
// must never look like an outage of all.
func TestAnIssuerWhosePodIsGoneSendsItsCallersElsewhere(t *testing.T) {
	n := newTenant(t)
	n.grant()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: operator, Name: issuer.ServiceAccount}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: operator, Name: "issuer-to-delete"}}
	as := rest.AnonymousClientConfig(shared.config)
	as.BearerToken = requestToken(t, account, pod.Name)
	i := startIssuerAs(t, as, n.clock)
	n.serving(i)
	raw := n.login(i, "alice", rightPassword).token

	if err := shared.admin.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	ended := func(call func() answer) answer {
		var got answer
		eventually(t, "the API server has noticed", func() (bool, string) {
			got = call()
			if got.status == http.StatusOK {
				return false, got.String()
			}
			return true, ""
		})
		want(t, got, http.StatusMisdirectedRequest, token.IssuerUnavailable)
		return got
	}
	ended(func() answer { return n.login(i, "alice", rightPassword) })
	n.expire()
	ended(func() answer { return n.exchange(i, protocol.CallRefresh, raw) })
	n.podToken = n.requestToken("pod-2", protocol.Audience) // one that it has not seen yet
	ended(func() answer { return n.call(i, http.MethodGet, protocol.CallKeys, "") })

	if !strings.Contains(i.logged(), "own identity has ended") {
		t.Error("its log does not say why")
	}

	other := startIssuer(t, n.clock)
	n.serving(other)
	if got := n.exchange(other, protocol.CallRefresh, raw); got.status != http.StatusOK || got.token == "" {
		t.Errorf("the other issuer: %s", got)
	}
}
