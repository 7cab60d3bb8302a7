// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/controllers/internal/reach"
	"github.com/tokenward/tokenward/internal/settings"
)

// maxMessageOfAPI is what the schema allows in a condition's message, in characters.
const maxMessageOfAPI = 32768

var fuzzNow = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// FuzzPolicy throws anything that parses as a TokenPolicy at what makes settings and
// conditions of it: also what no schema of ours would let in, which may be stored all the
// same since the schema was another.
func FuzzPolicy(f *testing.F) {
	for _, policy := range []*api.TokenPolicy{fullPolicy(), barePolicy()} {
		raw, err := json.Marshal(policy)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"metadata":{"generation":1},"spec":{"rules":[{"paths":[{"type":"Prefix","value":"/auth"}],"methods":["GET","GET"]}]}}`))
	authority, keys := goldenAuthority(f), parsedKeySet(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		policy := &api.TokenPolicy{}
		if json.Unmarshal(raw, policy) != nil {
			return
		}
		compile := func() *scope {
			s := &scope{policy: policy, keys: keys, where: installation{issuerURL: issuerURL, authorities: authority}}
			for _, run := range []phase{(&reconciler{}).checkRules, (&reconciler{}).renderSpec, (&reconciler{}).renewLastGood} {
				if err := run(t.Context(), s); err != nil {
					t.Fatalf("a user's mistake is taken for a fault, and tried for ever: %v", err)
				}
			}
			return s
		}
		before := policy.DeepCopy()
		s, again := compile(), compile()
		if !bytes.Equal(s.content, again.content) || fmt.Sprint(s.refused) != fmt.Sprint(again.refused) {
			t.Fatal("the same spec gives other settings the second time")
		}
		if (s.content == nil) == (s.refused == nil) {
			t.Fatalf("%d bytes of settings, refused %v", len(s.content), s.refused)
		}
		if s.content != nil {
			if _, err := settings.Parse(s.content); err != nil {
				t.Fatalf("a sidecar refuses the settings: %v", err)
			}
		}
		checkConditions(t, s)
		if diff := cmp.Diff(before, policy); diff != "" {
			t.Fatalf("the policy is changed, and it is the cache's (-before +after):\n%s", diff)
		}
	})
}

// The message was longer than a status may hold, so the status was never
// written and the policy tried for ever. The schema of today lets no such path in.
func TestAsManyPathsAreWrongAsThereCanBe(t *testing.T) {
	policy := barePolicy()
	for i := range 64 {
		rule := api.Rule{Access: api.AccessAuthenticated}
		for j := range 32 {
			rule.Paths = append(rule.Paths, exact(fmt.Sprintf("/%d/%d/..%s", i, j, strings.Repeat("/%2e", 120))))
		}
		policy.Spec.Rules = append(policy.Spec.Rules, rule)
	}
	s := &scope{policy: policy, keys: parsedKeySet(t), where: installation{issuerURL: issuerURL, authorities: goldenAuthority(t)}}
	if err := (&reconciler{}).renderSpec(t.Context(), s); err != nil || s.refused == nil {
		t.Fatalf("refused %v (%v)", s.refused, err)
	}
	if got := s.refused.message; len(got) > maxReported*1024+100 || !strings.Contains(got, "rules[0].paths[4].value") || !strings.HasSuffix(got, "and 2043 more") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	checkConditions(t, s)
}

// FuzzWays throws Services and pods at what looks for ways past the sidecar: whoever may
// write in a namespace chooses all of it, the webhook's own annotation included.
func FuzzWays(f *testing.F) {
	selector := map[string]string{"app": "shop"}
	services := []corev1.Service{
		service("named", selector, servicePort(80, "http")), service("past", selector, servicePort(80, 8080), servicePort(81, 9090)),
		service("other", map[string]string{"app": "other"}, servicePort(80, 8080)),
	}
	pods := func(status string) []metav1.PartialObjectMetadata {
		pod := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: "shop-1", UID: "1", Labels: selector,
			Annotations: map[string]string{api.PolicyAnnotation: "shop", api.StatusAnnotation: status},
		}}
		other := *pod.DeepCopy()
		other.Name, other.UID = "shop-2", "2"
		return []metav1.PartialObjectMetadata{pod, other}
	}
	add := func(pods []metav1.PartialObjectMetadata, enforce bool) {
		rawServices, err1 := json.Marshal(services)
		rawPods, err2 := json.Marshal(pods)
		if err1 != nil || err2 != nil {
			f.Fatal(err1, err2)
		}
		f.Add(rawServices, rawPods, enforce)
	}
	add(pods(`{"template":"a","capture":"Port","port":8080,"portName":"http"}`), true)
	add(pods(`{"template":"a","capture":"Redirect","port":8080}`), false)
	add(pods(`{"capture":"Port","port":8080,"portName":"`+strings.Repeat("x", 100)+`"}`), false)
	add(pods(`{"capture":"Port","port":-1,"portName":"\u0000\n"}`), true)
	add(nil, true)
	f.Fuzz(func(t *testing.T, rawServices, rawPods []byte, enforce bool) {
		var services []corev1.Service
		var pods []metav1.PartialObjectMetadata
		if json.Unmarshal(rawServices, &services) != nil || json.Unmarshal(rawPods, &pods) != nil || len(services) > 64 || len(pods) > 64 {
			return
		}
		for i := range services { // what the API server bounds for everybody
			services[i].Name = services[i].Name[:min(len(services[i].Name), 63)]
			for j := range services[i].Spec.Ports {
				target := &services[i].Spec.Ports[j].TargetPort
				target.StrVal = target.StrVal[:min(len(target.StrVal), 15)]
				protocol := &services[i].Spec.Ports[j].Protocol
				*protocol = (*protocol)[:min(len(*protocol), 4)]
			}
		}
		for i := range pods {
			pods[i].Name = pods[i].Name[:min(len(pods[i].Name), 253)]
		}
		look := func() *scope {
			s := &scope{policy: fullPolicy(), running: running(pods)}
			if enforce {
				s.policy.Spec.NetworkPolicy = api.NetworkPolicyEnforce
			}
			s.pods, s.ways = count(s.running, "a"), waysPast(services, s.running)
			for _, target := range targets(s.running) {
				if len(target.Pods) > 0 {
					s.tried.Results = append(s.tried.Results, reach.Result{
						Pod: target.Pods[0], Port: target.Port, Outcome: reach.Open, Addresses: []netip.Addr{netip.IPv6LinkLocalAllNodes()},
					})
				}
			}
			return s
		}
		s := look()
		wanted := checkConditions(t, s)
		slices.Reverse(services)
		slices.Reverse(pods)
		again := checkConditions(t, look())
		if diff := cmp.Diff(wanted, again); diff != "" {
			t.Fatalf("the conditions depend on the order of what is looked at (-before +after):\n%s", diff)
		}
	})
}

// Whoever may edit a pod could keep the status of its policy from being
// written, because the messages repeat the name of a port.
func TestAPodsAnnotationMakesNoMessageTooLong(t *testing.T) {
	selector := map[string]string{"app": "shop"}
	for name, c := range map[string]struct {
		status string
		want   injected
	}{
		"as the webhook wrote it": {`{"template":"a","capture":"Port","port":8080,"portName":"http"}`, injected{"a", api.CapturePort, 8080, "http"}},
		"no name":                 {`{"template":"a","capture":"Port","port":8080}`, injected{"a", api.CapturePort, 8080, ""}},
		"a name of 60,000 bytes":  {`{"capture":"Port","port":8080,"portName":"` + strings.Repeat("x", 60_000) + `"}`, injected{}},
		"a name of several lines": {`{"capture":"Port","port":8080,"portName":"a
b"}`, injected{}},
		"no port of TCP": {`{"capture":"Port","port":70000}`, injected{}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podFacts{"shop-1", "1", selector, injectedInto(c.status)}
			if pod.injected != c.want {
				t.Errorf("read as %+.100v", pod.injected)
			}
			s := &scope{policy: barePolicy(), running: []podFacts{pod}}
			s.ways = waysPast([]corev1.Service{service("past", selector, servicePort(80, 8081))}, s.running)
			checkConditions(t, s)
		})
	}
}

// checkConditions checks that the API server takes the conditions, that an Event may
// repeat them, and that nothing is left to be written once they are.
func checkConditions(t *testing.T, s *scope) []metav1.Condition {
	t.Helper()
	wanted := conditions(s, fuzzNow)
	for _, condition := range wanted {
		if condition.Message == "" || utf8.RuneCountInString(condition.Message) > maxMessageOfAPI {
			t.Fatalf("the API server takes no message of %d characters: %.200s", len(condition.Message), condition.Message)
		}
		if note := owned.Note(condition.Message); len(note) > 1024 {
			t.Fatalf("no Event takes a note of %d bytes", len(note))
		}
	}
	after := *s
	after.policy = s.policy.DeepCopy()
	after.policy.Status.ObservedGeneration, after.policy.Status.Pods = s.policy.Generation, &s.pods
	for _, condition := range wanted {
		meta.SetStatusCondition(&after.policy.Status.Conditions, condition)
	}
	if again := conditions(&after, fuzzNow.Add(time.Hour)); !saidAlready(after.policy, again, s.pods) {
		t.Fatalf("the status is written for ever:\n%s", cmp.Diff(wanted, again))
	}
	return wanted
}
