// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// policyOf reads a TokenPolicy.
func policyOf(ctx context.Context, namespace, name string) (*api.TokenPolicy, error) {
	content, err := world.kube.CoreV1().RESTClient().Get().AbsPath("/apis", api.GroupVersion.Group, api.GroupVersion.Version, "namespaces", namespace, "tokenpolicies", name).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	policy := &api.TokenPolicy{}
	return policy, json.Unmarshal(content, policy)
}

// saidOfBypasses waits until the condition Bypassable of the policy as it is now has the
// status and has a part in its message.
func saidOfBypasses(t *testing.T, namespace, policy string, status metav1.ConditionStatus, reason, part string) metav1.Condition {
	t.Helper()
	var found metav1.Condition
	err := until(t.Context(), func(ctx context.Context) error {
		has, err := policyOf(ctx, namespace, policy)
		if err != nil {
			return err
		}
		condition := meta.FindStatusCondition(has.Status.Conditions, api.ConditionBypassable)
		if condition == nil || condition.Status != status || condition.Reason != reason || condition.ObservedGeneration != has.Generation || !strings.Contains(condition.Message, part) {
			return fmt.Errorf("condition Bypassable of TokenPolicy %s/%s is %+v, expected %s, %s and a message with %q (see the manager's log)", namespace, policy, condition, status, reason, part)
		}
		found = *condition
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// warnings are the Events Bypassable of a policy.
func warnings(t *testing.T, namespace, policy string) []string {
	t.Helper()
	events, err := world.kube.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var notes []string
	for _, e := range events.Items {
		if e.Regarding.Kind == "TokenPolicy" && e.Regarding.Name == policy && e.Reason == api.ConditionBypassable && e.Type == corev1.EventTypeWarning {
			notes = append(notes, e.Note)
		}
	}
	return notes
}

// portAt are the URLs of a port at all addresses of the app's pods.
func portAt(t *testing.T, namespace, app, port string) map[string]string {
	t.Helper()
	urls, families := map[string]string{}, map[bool]bool{}
	for _, pod := range readyPods(t, namespace, app) {
		for _, ip := range pod.Status.PodIPs {
			families[net.ParseIP(ip.IP).To4() == nil] = true
			urls[fmt.Sprintf("pod %s at %s port %s", pod.Name, ip.IP, port)] = "http://" + net.JoinHostPort(ip.IP, port)
		}
	}
	if len(families) != 2 {
		t.Errorf("the pods of %s have addresses of one family only: %v", app, urls)
	}
	return urls
}

// askAll asks all URLs at once, none of them twice. What does not answer within ten
// seconds is not there; what should be is asked at the same time.
func askAll(t *testing.T, urls map[string]string) (answers map[string]answer, failures map[string]error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answers, failures = map[string]answer{}, map[string]error{}
	var (
		mu   sync.Mutex
		done sync.WaitGroup
	)
	for name, url := range urls {
		done.Go(func() {
			got, err := world.caller.try(ctx, http.MethodGet, url+"/orders", "", "")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures[name] = err
				return
			}
			answers[name] = got
		})
	}
	done.Wait()
	return answers, failures
}

// TestBypassable is threat row 15 under Port capture: who reaches the application past
// the sidecar is found by trying, and a NetworkPolicy closes it.
func TestBypassable(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	createUsers(t, namespace)
	workloads := []string{"open", "local", "redirected"}
	manifest := map[string]any{"Namespace": namespace, "Workloads": workloads, "OfOpen": api.NetworkPolicyNone}
	applyFile(t, "bypass.yaml", manifest)
	for _, name := range workloads {
		if err := rolledOut(t.Context(), namespace, name); err != nil {
			t.Fatal(err)
		}
		leadsToAll(t, shopURL(namespace, name), len(readyPods(t, namespace, name)))
	}

	t.Run("an application on all addresses", func(t *testing.T) {
		pastTheSidecar, theSidecar := portAt(t, namespace, "open", "8080"), portAt(t, namespace, "open", "18080")
		answers, failures := askAll(t, pastTheSidecar)
		for name, got := range answers {
			if got.status != http.StatusOK || got.seen(t).Path != "/orders" {
				t.Errorf("%s: status %d, expected the application's answer to nobody in particular", name, got.status)
			}
		}
		if len(failures) > 0 {
			t.Fatalf("the way past the sidecar that this test is about is not there: %v", failures)
		}
		found := saidOfBypasses(t, namespace, "open", metav1.ConditionTrue, api.ReasonApplicationPortOpen, "accepted a connection")
		for _, part := range []string{"port 8080", "spec.networkPolicy: Enforce", "tokenward.io/capture: Redirect", "127.0.0.1"} {
			if !strings.Contains(found.Message, part) {
				t.Errorf("the message does not say %q: %s", part, found.Message)
			}
		}
		named := 0
		for _, pod := range readyPods(t, namespace, "open") {
			if strings.Contains(found.Message, `"`+pod.Name+`"`) {
				named++
			}
		}
		if named != 1 {
			t.Errorf("the message names %d pods of the workload, expected 1: %s", named, found.Message)
		}
		if err := until(t.Context(), func(context.Context) error { // Events are written on the side
			if notes := warnings(t, namespace, "open"); len(notes) != 1 || !strings.Contains(notes[0], "accepted a connection") {
				return fmt.Errorf("%d Events Bypassable, expected 1: %q", len(notes), notes)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}

		manifest["OfOpen"] = api.NetworkPolicyEnforce
		applyFile(t, "bypass.yaml", manifest)
		closed := saidOfBypasses(t, namespace, "open", metav1.ConditionFalse, api.ReasonNoneFound, "were not accepted")
		if !strings.Contains(closed.Message, "did not answer at port 8080") {
			t.Errorf("the message does not say what was seen: %s", closed.Message)
		}
		// A Service that names the port leads nowhere now. The sidecar's port beside it shows
		// that the nodes know the Service.
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "past"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "open"},
			Ports:    []corev1.ServicePort{{Name: "sidecar", Port: 80, TargetPort: intstr.FromString("http")}, {Name: "past", Port: 8080}},
		}}
		if _, err := world.kube.CoreV1().Services(namespace).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		leadsToAll(t, shopURL(namespace, "past"), 2)
		pastTheSidecar["Service by number"] = shopURL(namespace, "past") + ":8080"
		theSidecar["Service by name"] = shopURL(namespace, "past")
		all := maps.Clone(pastTheSidecar)
		maps.Copy(all, theSidecar)
		answers, failures = askAll(t, all)
		for name := range pastTheSidecar {
			if failures[name] == nil {
				t.Errorf("%s: status %d, expected no answer, as NetworkPolicy tokenward-open admits the sidecar's ports alone (see network-policies.log of the node)", name, answers[name].status)
			}
		}
		for name := range theSidecar {
			if got := answers[name]; got.reason() != "token_missing" {
				t.Errorf("%s: status %d, reason %q, failure %v, expected token_missing", name, got.status, got.reason(), failures[name])
			}
		}

		// What the pods need goes on: the kubelet's probes, the issuer, metrics. New pods
		// become ready by probes of the application's own port.
		if err := rollout(t.Context(), namespace, "open"); err != nil {
			t.Fatal(err)
		}
		if err := rolledOut(t.Context(), namespace, "open"); err != nil {
			t.Fatal(err)
		}
		leadsToAll(t, shopURL(namespace, "open"), 2)
		requireServed(t, shopURL(namespace, "open")+"/orders", logIn(t, shopURL(namespace, "open")))
		for _, pod := range readyPods(t, namespace, "open") {
			requireNoRestart(t, &pod)
			got := world.caller.call(t, http.MethodGet, "http://"+net.JoinHostPort(pod.Status.PodIP, "18081")+"/metrics", "", "")
			if got.status != http.StatusOK || !strings.Contains(string(got.body), "tokenward_sidecar_ready 1") {
				t.Errorf("metrics of pod %s: status %d, expected those of a sidecar that is ready", pod.Name, got.status)
			}
		}
		saidOfBypasses(t, namespace, "open", metav1.ConditionTrue, api.ReasonServicePastSidecar, `Service "past" port 8080`)
	})

	t.Run("an application on 127.0.0.1", func(t *testing.T) {
		saidOfBypasses(t, namespace, "local", metav1.ConditionFalse, api.ReasonNoneFound, "refused one at port 8080")
		if answers, _ := askAll(t, portAt(t, namespace, "local", "8080")); len(answers) > 0 {
			t.Errorf("%d answers past the sidecar, although it says that there is no way", len(answers))
		}
		requireServed(t, shopURL(namespace, "local")+"/orders", logIn(t, shopURL(namespace, "local")))
	})

	t.Run("Redirect capture", func(t *testing.T) {
		// By now the manager has tried the pods beside it, and would have tried these.
		saidOfBypasses(t, namespace, "redirected", metav1.ConditionFalse, api.ReasonRedirected, "")
	})
	for _, name := range []string{"local", "redirected"} {
		if notes := warnings(t, namespace, name); len(notes) > 0 {
			t.Errorf("Events Bypassable of policy %s: %q", name, notes)
		}
	}
}
