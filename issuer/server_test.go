// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

func TestOnlyPodsOfTheNamespaceAreServed(t *testing.T) {
	n, other := newTenant(t), newTenant(t)
	n.grant()
	i := startIssuer(t, n.clock)
	n.serving(i)
	other.serving(i)
	path := protocol.Path(n.namespace, "web", protocol.CallKeys)
	parts := strings.Split(n.podToken, ".")
	for name, test := range map[string]struct {
		token  string
		status int
	}{
		"the namespace's own pod":              {n.podToken, 200},
		"another pod of the namespace":         {n.requestToken("pod-2", protocol.Audience), 200},
		"one of two audiences is ours":         {n.requestToken("pod-2", protocol.Audience, "vault"), 200},
		"a pod of another namespace":           {other.podToken, 403},
		"a token for the API server":           {n.requestToken("pod-1"), 401},
		"a token for somebody else":            {n.requestToken("pod-1", "vault"), 401},
		"a token that is not bound to a pod":   {n.requestToken("", protocol.Audience), 401},
		"claims of one, signature of another":  {parts[0] + "." + parts[1] + "." + strings.Split(other.podToken, ".")[2], 401},
		"an access token instead of the pod's": {"eyJhbGciOiJFUzI1NiJ9.e30.AAAA", 401},
		"nothing":                              {"", 401},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := n.try(i, test.token, http.MethodGet, path, "")
			if err != nil || got.status != test.status {
				t.Errorf("got %s, %v; want %d", got, err, test.status)
			}
			if test.status != 200 && got.problem.Reason != token.IssuerUnavailable {
				t.Errorf("reason %s", got.problem.Reason)
			}
		})
	}
}

func TestADeletedPodIsServedForAMinuteAtMost(t *testing.T) {
	n := newTenant(t)
	i := startIssuer(t, n.clock)
	n.serving(i)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "pod-1"}}
	if err := shared.admin.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	n.pass(time.Minute)
	eventually(t, "the pod is forgotten", func() (bool, string) {
		got := n.call(i, http.MethodGet, protocol.CallKeys, "")
		n.pass(time.Minute) // the API server itself remembers for some seconds
		return got.status == 401, got.String()
	})
}

// The whole of it, over the real store: many calls with one expired token at three
// issuers, one rotation, one token.
func TestManyRefreshesOverThreeIssuersAreOneRotation(t *testing.T) {
	const calls, rounds = 200, 5
	n := newTenant(t)
	n.grant()
	issuers := []*instance{startIssuer(t, n.clock), startIssuer(t, n.clock), startIssuer(t, n.clock)}
	n.serving(issuers...)
	current := n.login(issuers[0], "alice", rightPassword).token
	for round := range rounds {
		n.expire()
		answers := make([]answer, calls)
		errs := make([]error, calls)
		var wg sync.WaitGroup
		for k := range calls {
			wg.Go(func() {
				answers[k], errs[k] = n.try(issuers[k%len(issuers)], n.podToken, http.MethodPost,
					protocol.Path(n.namespace, "web", protocol.CallRefresh), `{"access_token": "`+current+`"}`)
			})
		}
		wg.Wait()
		for k := range calls {
			if errs[k] != nil || answers[k].token == "" || answers[k].token != answers[0].token {
				t.Fatalf("round %d, call %d: %s, %v; the first got %s", round, k, answers[k], errs[k], answers[0])
			}
		}
		current = answers[0].token
		if got := n.verify(current).Generation; got != int64(round)+2 {
			t.Fatalf("round %d: generation %d", round, got)
		}
	}
	rotated := 0.0
	for _, i := range issuers {
		rotated += metric(t, i, "tokenward_issuer_calls_total", map[string]string{"call": "refresh", "outcome": "rotated"})
	}
	if rotated != rounds {
		t.Errorf("%v calls rotated in %d rounds", rotated, rounds)
	}
	of := map[string]string{"namespace": n.namespace, "policy": "web"}
	if sessions, limit := metric(t, issuers[0], "tokenward_issuer_sessions", of), metric(t, issuers[0], "tokenward_issuer_sessions_limit", of); sessions != 1 || limit != 100 {
		t.Errorf("the metrics say %v sessions of at most %v", sessions, limit)
	}
	if writes := metric(t, issuers[0], "tokenward_issuer_store_requests_total", map[string]string{"namespace": n.namespace, "policy": "web", "verb": "write"}); writes == 0 {
		t.Error("the metrics say that nothing was written")
	}
}

func TestTheIssuerEndsInOrderAndLeavesNothingBehind(t *testing.T) {
	n := newTenant(t)
	n.grant()
	certificate(t)
	before := goleak.IgnoreCurrent()
	i := startIssuer(t, n.clock)
	n.serving(i)
	alice := n.login(i, "alice", rightPassword)
	events := n.listen(i)
	<-events // it is up
	var wg sync.WaitGroup
	for range 4 { // in flight when the end comes, or refused before they are
		wg.Go(func() {
			got, err := n.try(i, n.podToken, http.MethodPost, protocol.Path(n.namespace, "web", protocol.CallLogin), `{"id": "alice", "password": "`+rightPassword+`"}`)
			if err == nil && got.status != 200 {
				t.Errorf("a login during the end: %s", got)
			}
		})
	}
	n.expire()
	if got := n.exchange(i, protocol.CallRefresh, alice.token); got.status != 200 {
		t.Error(got)
	}
	began := time.Now()
	i.stop()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the end took %v", took)
	}
	for range events { // ends, because the stream does
	}
	wg.Wait()
	i.client.CloseIdleConnections()
	goleak.VerifyNone(t, before,
		// Connections to the API server belong to transports that client-go keeps for the process.
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"),
		goleak.IgnoreAnyFunction("net/http.(*http2clientConnReadLoop).run"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

func TestARenewedCertificateIsServedWithoutARestart(t *testing.T) {
	n := newTenant(t)
	i := startIssuer(t, n.clock)
	n.serving(i)
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: operator, Name: "tokenward-issuer-tls"}
	if err := shared.admin.Get(t.Context(), key, secret); err != nil {
		t.Fatal(err)
	}
	renewed, serial := reissue(t, secret)
	if err := shared.admin.Update(t.Context(), renewed); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new certificate is served", func() (bool, string) {
		got := servedSerial(t, i)
		return got == serial, got
	})
}
