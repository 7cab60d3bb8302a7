// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/token"
)

func (n *tenant) verify(raw string) *token.Claims {
	n.t.Helper()
	set, err := n.ring.KeySet()
	if err != nil {
		n.t.Fatal(err)
	}
	v := token.Verifier{Keys: set, Issuer: "https://shop.example.com", Audiences: []string{"shop-api"}, Leeway: 30 * time.Second}
	claims, err := v.Verify(raw, n.clock.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	return claims
}

// expire lets tokens of five minutes run out.
func (n *tenant) expire() { n.pass(5*time.Minute + 31*time.Second) }

// listen reads the tenant's revocations until the test ends.
func (n *tenant) listen(i *instance) <-chan protocol.RevocationEvent {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, i.url+protocol.Path(n.namespace, "web", protocol.CallRevocations), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+n.podToken)
	response, err := i.client.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		n.t.Fatalf("the stream begins with %d", response.StatusCode)
	}
	events := make(chan protocol.RevocationEvent, 100)
	go func() {
		defer close(events)
		defer func() { _ = response.Body.Close() }()
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			var event protocol.RevocationEvent
			if json.Unmarshal(lines.Bytes(), &event) == nil {
				events <- event
			}
		}
	}()
	return events
}

// hear waits for the revocation of a session.
func (n *tenant) hear(events <-chan protocol.RevocationEvent, sid string) {
	n.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case event, ok := <-events:
			if !ok {
				n.t.Fatalf("the stream ended before it named session %s", sid)
			}
			if event.SessionID == sid {
				return
			}
		case <-timeout:
			n.t.Fatalf("the stream never named session %s", sid)
		}
	}
}

// The issuer's part of the eight steps, over real TokenReviews and the real store.
func TestLoginRefreshLogoutOverARealAPIServer(t *testing.T) {
	n := newTenant(t)
	n.grant()
	one, two := startIssuer(t, n.clock), startIssuer(t, n.clock)
	n.serving(one, two)

	want(t, n.login(one, "alice", wrongPassword), 403, token.CredentialsInvalid)
	want(t, n.login(one, "mallory", rightPassword), 403, token.CredentialsInvalid)
	want(t, n.login(one, "bob", rightPassword), 403, token.CredentialsInvalid)
	first := n.login(one, "alice", rightPassword)
	claims := n.verify(first.token)
	if claims.Subject != "alice" || claims.ClientID != n.namespace+"/web" || claims.Extra["role"] != "admin" {
		t.Errorf("claims %+v", claims)
	}
	events := n.listen(two)

	n.expire()
	second := n.exchange(two, protocol.CallRefresh, first.token) // another issuer than the one that made it
	if got := n.verify(second.token); got.Generation != 2 || got.SessionID != claims.SessionID {
		t.Errorf("claims %+v", got)
	}
	if again := n.exchange(one, protocol.CallRefresh, first.token); again.token != second.token {
		t.Errorf("a repeated refresh at another issuer: %s", again)
	}
	if got := n.exchange(one, protocol.CallLogout, second.token); got.status != 204 {
		t.Errorf("logout: %s", got)
	}
	n.hear(events, claims.SessionID)
	want(t, n.exchange(two, protocol.CallRefresh, second.token), 403, token.SessionRevoked)
	if got := n.exchange(two, protocol.CallLogout, second.token); got.status != 204 {
		t.Errorf("logout once more: %s", got)
	}
}

func TestARemovedUserIsRefusedAtTheRefreshAndRevoked(t *testing.T) {
	n := newTenant(t)
	n.grant()
	i := startIssuer(t, n.clock)
	n.serving(i)
	alice := n.login(i, "alice", rightPassword)
	sid := n.verify(alice.token).SessionID
	events := n.listen(i)
	n.users(func(data map[string][]byte) { delete(data, "alice") })
	n.expire()
	want(t, n.exchange(i, protocol.CallRefresh, alice.token), 403, token.UserDisabled)
	n.hear(events, sid)
	n.users(func(data map[string][]byte) { data["alice"] = entry("") })
	want(t, n.exchange(i, protocol.CallRefresh, alice.token), 403, token.SessionRevoked)
}

func TestAnOutageOfTheUserSourceEndsNoSession(t *testing.T) {
	n := newTenant(t)
	n.grant()
	i := startIssuer(t, n.clock)
	n.serving(i)
	alice := n.login(i, "alice", rightPassword)
	users := &corev1.Secret{}
	if err := shared.admin.Get(t.Context(), client.ObjectKey{Namespace: n.namespace, Name: "shop-users"}, users); err != nil {
		t.Fatal(err)
	}
	if err := shared.admin.Delete(t.Context(), users); err != nil {
		t.Fatal(err)
	}
	n.expire()
	refused := n.exchange(i, protocol.CallRefresh, alice.token)
	want(t, refused, 503, token.IssuerUnavailable)
	if refused.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	users.ResourceVersion = ""
	create(t, users)
	n.pass(2 * time.Second)
	if got := n.exchange(i, protocol.CallRefresh, alice.token); got.status != 200 {
		t.Errorf("when it is back: %s", got)
	}
}

func TestKeysAndSpecChangeWithoutADroppedRequest(t *testing.T) {
	n := newTenant(t)
	n.grant()
	i := startIssuer(t, n.clock)
	n.serving(i)
	alice := n.login(i, "alice", rightPassword)
	before := n.verify(alice.token)

	ctx, stop := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { // somebody calls all the time
		defer close(failed)
		for ctx.Err() == nil {
			got, err := n.try(i, n.podToken, http.MethodGet, protocol.Path(n.namespace, "web", protocol.CallKeys), "")
			if err != nil || got.status != 200 {
				failed <- fmt.Errorf("%s, %w", got, err)
				return
			}
		}
	}()
	for range 3 {
		n.advance(keyring.Plan{RotateRequest: fmt.Sprint(n.ring.Version)})
		n.pass(6 * time.Minute) // published before it signs
		n.advance(keyring.Plan{RotateRequest: n.ring.RotateHandled})
		n.serving(i)
	}
	policy := &api.TokenPolicy{}
	if err := shared.admin.Get(t.Context(), client.ObjectKeyFromObject(n.policy), policy); err != nil {
		t.Fatal(err)
	}
	policy.Spec.Denial.StatusCode = 401
	if err := shared.admin.Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new status code is used", func() (bool, string) {
		got := n.login(i, "alice", wrongPassword)
		return got.status == 401, got.String()
	})
	stop()
	if err := <-failed; err != nil {
		t.Errorf("a call was dropped: %v", err)
	}
	next := n.exchange(i, protocol.CallRefresh, alice.token) // signed before three rotations
	after := n.verify(next.token)
	if after.SessionID != before.SessionID {
		t.Errorf("claims %+v", after)
	}
	oldKey, _ := token.KeyID(alice.token)
	newKey, _ := token.KeyID(next.token)
	if oldKey == newKey {
		t.Error("the new key does not sign")
	}
	n.advance(keyring.Plan{RevokedKeyIDs: []string{newKey}})
	n.serving(i)
	want(t, n.exchange(i, protocol.CallRefresh, next.token), 401, token.KeyUnknown)
}

func TestTheStoreIsFull(t *testing.T) {
	n := newTenant(t, func(spec *api.TokenPolicySpec) { spec.Store.ConfigMap = &api.ConfigMapStore{Shards: 1, MaxSessions: 1} })
	n.grant()
	i := startIssuer(t, n.clock)
	n.serving(i)
	if got := n.login(i, "alice", rightPassword); got.status != 200 {
		t.Fatal(got)
	}
	full := n.login(i, "alice", rightPassword)
	want(t, full, 503, token.StoreFull)
	if full.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestADeletedKeyOrPolicyIsAnOutageToItsPods(t *testing.T) {
	n := newTenant(t)
	n.grant()
	i := startIssuer(t, n.clock)
	n.serving(i)
	for _, gone := range []client.Object{n.key, n.policy} {
		if err := shared.admin.Delete(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is noticed", func() (bool, string) {
			got := n.login(i, "alice", rightPassword)
			return got.status == 503 && got.problem.Reason == token.IssuerUnavailable, got.String()
		})
	}
}

func TestNothingSecretIsInLogsMetricsOrStatus(t *testing.T) {
	n := newTenant(t)
	n.grant()
	i := startIssuer(t, n.clock)
	n.serving(i)
	alice := n.login(i, "alice", rightPassword)
	n.login(i, "alice", wrongPassword)
	n.call(i, http.MethodPost, protocol.CallLogin, `{"id": "alice", "password": "`+rightPassword+`", "c4n4ry-field": "c4n4ry"}`)
	n.expire()
	next := n.exchange(i, protocol.CallRefresh, alice.token)
	n.exchange(i, protocol.CallRefresh, next.token+"x")
	n.exchange(i, protocol.CallLogout, next.token)
	n.awaitUsers(api.ReasonUsersReady)
	i.stop()

	policy := &api.TokenPolicy{}
	if err := shared.admin.Get(t.Context(), client.ObjectKeyFromObject(n.policy), policy); err != nil {
		t.Fatal(err)
	}
	status, err := json.Marshal(policy.Status)
	if err != nil {
		t.Fatal(err)
	}
	families, err := i.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	// A token's signature and claims are secret; its first part says only which key made it.
	secrets := map[string]string{"canary": "c4n4ry", "hash": "$argon2id", "access token": "eyJ", "pod's token": strings.Split(n.podToken, ".")[2]}
	for what, secret := range secrets {
		for where, text := range map[string]string{"log": i.logged(), "status": string(status), "metrics": fmt.Sprint(families)} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds the %s", where, what)
			}
		}
	}
	for outcome, count := range map[string]float64{"new": 1, "credentials_invalid": 1, "request_invalid": 1} {
		if got := metric(t, i, "tokenward_issuer_calls_total", map[string]string{"call": "token", "outcome": outcome}); got != count {
			t.Errorf("logins counted as %s: %v, want %v", outcome, got, count)
		}
	}
	if problems, err := testutil.GatherAndLint(i.registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

func metric(t *testing.T, i *instance, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := i.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	series:
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				if labels[label.GetName()] != label.GetValue() {
					continue series
				}
			}
			return series.GetCounter().GetValue() + series.GetGauge().GetValue() // it is one of the two
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}
