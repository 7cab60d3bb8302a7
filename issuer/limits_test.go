// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

// wantLimited is 429 with a Retry-After in whole seconds of at most ten minutes.
func wantLimited(t *testing.T, got answer) {
	t.Helper()
	want(t, got, 429, token.RateLimited)
	if after, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || after < 1 || after > 600 {
		t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
	}
}

// Issuers share what they have counted through the store, here in ConfigMaps of a real
// API server.
func TestGuessesAreLimitedOverTwoIssuers(t *testing.T) {
	n := newTenant(t, func(spec *api.TokenPolicySpec) {
		spec.Login.PerAccount = api.AttemptLimit{Burst: 4, Interval: &metav1.Duration{Duration: 10 * time.Minute}}
	})
	n.grant()
	one, two := startIssuer(t, n.clock), startIssuer(t, n.clock)
	n.serving(one, two)
	session := n.login(one, "alice", rightPassword)
	want(t, session, 200, "")

	for _, id := range []string{"alice", "mallory"} {
		for i, at := range []*instance{one, two, two, one} {
			// Spelled in another way it is the same account.
			want(t, n.login(at, []string{id, strings.ToUpper(id)}[i/2], wrongPassword), 403, token.CredentialsInvalid)
		}
		for _, at := range []*instance{one, two, one} {
			wantLimited(t, n.login(at, id, wrongPassword))
		}
	}
	wantLimited(t, n.login(one, "alice", rightPassword))
	wantLimited(t, n.login(two, "alice", rightPassword))
	want(t, n.login(two, "bob", wrongPassword), 403, token.CredentialsInvalid)
	limited := metric(t, one, "tokenward_issuer_logins_limited_total", map[string]string{"allowance": "account"})
	if limited != 5 {
		t.Errorf("%v logins counted as limited, want 5", limited)
	}
	for _, i := range []*instance{one, two} {
		for _, secret := range []string{wrongPassword, rightPassword, "mallory", "MALLORY"} {
			if strings.Contains(i.logged(), secret) {
				t.Errorf("the log holds %q", secret)
			}
		}
	}

	n.expire()
	next := n.exchange(two, protocol.CallRefresh, session.token)
	want(t, next, 200, "")
	want(t, n.exchange(one, protocol.CallLogout, next.token), 204, "")
	n.pass(10 * time.Minute)
	want(t, n.login(two, "alice", rightPassword), 200, "")
}
