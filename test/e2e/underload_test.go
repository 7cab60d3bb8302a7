// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/token"
)

// enough requests for the figure of a key rotation and a policy change.
const enough = 100_000

// TestUnderLoad has 500 requests a second go to one workload and 50 to another, from
// clients that never try again, while all that an operator does to a cluster is done. A
// rotation of the key, whose parts are three minutes apart, goes on beneath the rest.
func TestUnderLoad(t *testing.T) {
	namespace := startWorkloads(t, "steady", "rolled")
	noneBare(t, namespace)
	steady, rolled := offer(t, namespace, "steady", 500), offer(t, namespace, "rolled", 50)
	loads := []*offered{steady, rolled}

	before := readiness(t, namespace, "steady")
	oldKey := signingKey(t, namespace).Status.ActiveKeyID
	shop := metav1.ObjectMeta{Namespace: namespace, Name: "shop"}
	changed := time.Now()
	change(t, &api.SigningKey{ObjectMeta: shop}, fmt.Sprintf(`{"metadata":{"annotations":{"tokenward.io/rotate":%q}}}`, time.Now().Format(time.RFC3339)))
	change(t, &api.TokenPolicy{ObjectMeta: shop}, `{"spec":{"accessToken":{"ttl":"40s"},
		"rules":[{"paths":[{"type":"Exact","value":"/healthz"}],"methods":["GET"],"access":"Anonymous"},{"paths":[{"type":"Exact","value":"/closed"}],"access":"Denied"}],
		"upstream":{"claimHeaders":[{"claim":"sub","header":"X-User-Id"},{"claim":"sid","header":"X-Session"}]}}}`)

	during(t, "rolling update", loads, func(t *testing.T) {
		t.Helper()
		roll(t, namespace, "rolled")
	})
	during(t, "scale from 2 to 4 to 2", loads, func(t *testing.T) {
		t.Helper()
		scale(t, namespace, "rolled", 4)
		scale(t, namespace, "rolled", 2)
	})
	allJoined(t, loads) // a login that an issuer had begun ends with it
	during(t, "issuer killed", loads, func(t *testing.T) {
		t.Helper()
		end(t, operatorNamespace, issuer(t).Name)
		settled(t, operatorNamespace, "tokenward-issuer")
	})
	during(t, "issuer frozen", loads, func(t *testing.T) {
		t.Helper()
		// Longer than a token lives, and not so long that the kubelet ends it.
		freeze(t, issuer(t), "/tokenward", 35*time.Second)
		settled(t, operatorNamespace, "tokenward-issuer")
	})
	during(t, "issuers rolled", loads, func(t *testing.T) {
		t.Helper()
		roll(t, operatorNamespace, "tokenward-issuer")
	})
	during(t, "certificates made anew", loads, func(t *testing.T) {
		t.Helper()
		whileAdmitting(t, namespace, func() { forgetCertificates(t) })
	})
	during(t, "managers rolled", loads, func(t *testing.T) {
		t.Helper()
		whileAdmitting(t, namespace, func() { roll(t, operatorNamespace, "tokenward-manager") })
	})
	during(t, "leading manager killed", loads, killLeader)
	during(t, "new policy and keys reach every pod", loads, func(t *testing.T) {
		t.Helper()
		err := until(t.Context(), func(context.Context) error {
			for pod, now := range readiness(t, namespace, "steady") {
				if now.Generation <= before[pod].Generation || now.KeySetVersion <= before[pod].KeySetVersion {
					return fmt.Errorf("pod %s still has policy generation %d and key set %d: see the ConfigMap tokenward-shop, and the kubelet", pod, now.Generation, now.KeySetVersion)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		world.figures.add("policy change under load", "in force at every pod %s after it was applied", slowestToTake(t, namespace, before, changed).Round(time.Second))
	})
	during(t, "the new key signs", loads, func(t *testing.T) {
		t.Helper()
		waitForKey(t, namespace, oldKey)
		raw := logIn(t, shopURL(namespace, "steady"))
		if kid, _ := token.KeyID(raw); kid == oldKey {
			t.Error("a login after the rotation is signed with the old key")
		}
		// From here on every session has its token exchanged for one of the new key.
		tokens := steady.report(t).NewTokens
		err := until(t.Context(), func(context.Context) error {
			r := steady.report(t)
			if r.NewTokens < tokens+100 || r.Sent < enough {
				return fmt.Errorf("%d new tokens since the new key signs, and %d requests in all", r.NewTokens-tokens, r.Sent)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	for _, o := range loads {
		r := o.stop(t)
		t.Logf("load on %s: %s", o.workload, describeLoad(r))
		measured("load on "+o.workload+", under all disturbances", r)
	}
}

// allJoined waits until every session is logged in.
func allJoined(t *testing.T, loads []*offered) {
	t.Helper()
	for _, o := range loads {
		err := until(t.Context(), func(context.Context) error {
			if r := o.report(t); r.Sessions+r.Failures() < o.sessions {
				return fmt.Errorf("%d of %d sessions of the load on %s are logged in", r.Sessions, o.sessions, o.workload)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// issuer is one of the issuers.
func issuer(t *testing.T) *corev1.Pod {
	t.Helper()
	pods, err := deploymentPods(t.Context(), operatorNamespace, "tokenward-issuer")
	if err != nil {
		t.Fatal(err)
	}
	return &pods[0]
}

// waitForKey waits until another key than old signs.
func waitForKey(t *testing.T, namespace, old string) {
	t.Helper()
	err := until(t.Context(), func(context.Context) error {
		if key := signingKey(t, namespace); key.Status.ActiveKeyID == old {
			return fmt.Errorf("the key %s still signs: see the events of the SigningKey and the manager's log; its keys are %+v", old, key.Status.Keys)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inForce is what a sidecar says of its settings.
type inForce struct{ Generation, KeySetVersion int64 }

// readiness asks every pod of a workload.
func readiness(t *testing.T, namespace, name string) map[string]inForce {
	t.Helper()
	pods, err := deploymentPods(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]inForce{}
	for _, pod := range pods {
		got := world.caller.call(t, http.MethodGet, "http://"+net.JoinHostPort(pod.Status.PodIP, "18081")+"/readyz", "", "")
		var body struct{ Settings inForce }
		if err := json.Unmarshal(got.body, &body); err != nil || got.status != http.StatusOK {
			t.Fatalf("pod %s: status %d of /readyz: %s", pod.Name, got.status, got.body)
		}
		found[pod.Name] = body.Settings
	}
	return found
}

func signingKey(t *testing.T, namespace string) *api.SigningKey {
	t.Helper()
	key := &api.SigningKey{}
	if err := world.client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "shop"}, key); err != nil {
		t.Fatal(err)
	}
	return key
}

// change merges a patch into an object.
func change(t *testing.T, object client.Object, patch string) {
	t.Helper()
	if err := world.client.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}
