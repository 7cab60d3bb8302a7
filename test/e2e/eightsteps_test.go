// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

const (
	alicePhone    = "+82-10-1234-5678"
	alicePassword = "correct horse battery staple"
)

// shops are the workloads of testdata/shop.yaml, by what becomes of expired tokens.
var shops = map[string]api.OnExpired{"reject": api.OnExpiredReject, "refresh": api.OnExpiredRefresh}

// startShops applies testdata/shop.yaml and the users, and waits until all runs.
func startShops(t *testing.T) (namespace string) {
	t.Helper()
	namespace = newNamespace(t)
	createUsers(t, namespace)
	applyFile(t, "shop.yaml", map[string]any{"Namespace": namespace, "Shops": shops})
	for name := range shops {
		if err := rolledOut(t.Context(), namespace, name); err != nil {
			t.Fatal(err)
		}
		leadsToAll(t, shopURL(namespace, name), 2)
	}
	return namespace
}

func shopURL(namespace, name string) string {
	return "http://" + name + "." + namespace + ".svc.cluster.local"
}

// leadsToAll waits until the Service leads to so many pods from where the caller is:
// the nodes learn of ready pods a moment after the Deployment says that they are.
func leadsToAll(t *testing.T, shop string, pods int) {
	t.Helper()
	answered := map[string]bool{}
	err := until(t.Context(), func(ctx context.Context) error {
		got, err := world.caller.try(ctx, http.MethodGet, shop+"/healthz", "", "")
		if err != nil {
			return err
		}
		if got.status != http.StatusOK {
			t.Fatalf("what the policy leaves open is answered with status %d, reason %q", got.status, got.reason())
		}
		answered[got.seen(t).Pod] = true
		if len(answered) < pods {
			return fmt.Errorf("%s leads to %d pods, expected %d", shop, len(answered), pods)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// logIn is steps 1 to 4.
func logIn(t *testing.T, shop string) string {
	t.Helper()
	got := world.caller.call(t, http.MethodPost, shop+"/auth/token", "", fmt.Sprintf(`{"id":"alice","phone":%q,"password":%q}`, alicePhone, alicePassword))
	var body struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal(got.body, &body); err != nil || got.status != http.StatusOK || body.AccessToken == "" {
		t.Fatalf("a login was answered with status %d, reason %q", got.status, got.reason())
	}
	if body.RefreshToken != "" {
		t.Error("the answer to a login has a refresh token: that one never leaves the server")
	}
	return body.AccessToken
}

// TestEightSteps is the main job, through a Service and from another pod.
func TestEightSteps(t *testing.T) {
	namespace := startShops(t)

	pods, err := world.kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		if len(pod.Spec.InitContainers) != 1 || pod.Spec.InitContainers[0].Name != "tokenward" {
			t.Errorf("pod %s runs without the sidecar", pod.Name)
		}
	}

	for name := range shops {
		shop := shopURL(namespace, name)
		t.Run("steps 1 to 7 of "+name, func(t *testing.T) {
			refused := func(what, token, reason string) {
				t.Helper()
				got := world.caller.call(t, http.MethodGet, shop+"/orders", token, "")
				if got.status != http.StatusForbidden || got.reason() != reason {
					t.Errorf("%s: status %d and reason %q, want 403 and %q", what, got.status, got.reason(), reason)
				}
			}
			token := logIn(t, shop)
			refused("no token", "", "token_missing")
			at := strings.LastIndex(token, ".") + 20
			replacement := "A"
			if token[at] == 'A' {
				replacement = "B"
			}
			refused("a forged token", token[:at]+replacement+token[at+1:], "signature_invalid")
			wrong := world.caller.call(t, http.MethodPost, shop+"/auth/token", "", fmt.Sprintf(`{"id":"alice","phone":%q,"password":"guess"}`, alicePhone))
			if wrong.status != http.StatusForbidden || wrong.reason() != "credentials_invalid" {
				t.Errorf("a wrong password: status %d and reason %q", wrong.status, wrong.reason())
			}
			// Both pods of the Service know the token that one of them relayed.
			answered := map[string]bool{}
			for range 20 {
				got := world.caller.call(t, http.MethodGet, shop+"/orders", token, "", "X-User-Id", "root")
				if got.status != http.StatusOK {
					t.Fatalf("a valid token: status %d and reason %q", got.status, got.reason())
				}
				seen := got.seen(t)
				if users := seen.Header.Values("X-User-Id"); len(users) != 1 || users[0] != "alice" {
					t.Errorf("the application saw the users %q, want alice alone", users)
				}
				answered[seen.Pod] = true
			}
			if len(answered) != 2 {
				t.Errorf("pods that answered: %v, want both", answered)
			}
		})
	}

	t.Run("step 8a: an expired token is refused", func(t *testing.T) {
		t.Parallel()
		shop := shopURL(namespace, "reject")
		token := logIn(t, shop)
		last := callUntilExpired(t, shop, token, func(got answer) bool { return got.status != http.StatusOK })
		if last.status != http.StatusForbidden || last.reason() != "token_expired" {
			t.Errorf("status %d and reason %q, want 403 and token_expired", last.status, last.reason())
		}
	})

	t.Run("step 8b: an expired token is exchanged, and the request goes through", func(t *testing.T) {
		t.Parallel()
		shop := shopURL(namespace, "refresh")
		token := logIn(t, shop)
		last := callUntilExpired(t, shop, token, func(got answer) bool { return got.status != http.StatusOK || got.newToken() != "" })
		if last.status != http.StatusOK || last.newToken() == "" || last.newToken() == token {
			t.Fatalf("status %d, reason %q, a new token: %t", last.status, last.reason(), last.newToken() != "" && last.newToken() != token)
		}
		if user := last.seen(t).Header.Get("X-User-Id"); user != "alice" {
			t.Errorf("the application saw the user %q, want alice", user)
		}
		next := world.caller.call(t, http.MethodGet, shop+"/orders", last.newToken(), "")
		if next.status != http.StatusOK || next.newToken() != "" {
			t.Errorf("the new token: status %d, reason %q, another new one: %t", next.status, next.reason(), next.newToken() != "")
		}
	})
}

// callUntilExpired calls with a token until done, which must not be before it expires.
func callUntilExpired(t *testing.T, shop, token string, done func(answer) bool) answer {
	t.Helper()
	began, ticker := time.Now(), time.NewTicker(500*time.Millisecond)
	defer ticker.Stop()
	for {
		got := world.caller.call(t, http.MethodGet, shop+"/orders", token, "")
		if done(got) {
			if after := time.Since(began); after < 25*time.Second {
				t.Errorf("after %s already, and the token lives 30 s", after)
			}
			return got
		}
		if time.Since(began) > time.Minute {
			t.Fatal("a token of 30 s is accepted after a minute")
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-ticker.C:
		}
	}
}
