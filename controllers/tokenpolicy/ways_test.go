// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/injection"
)

// injectedByTheWebhook is what the webhook makes of a pod: the words of this package
// about the sidecar's ports are checked against it and not against themselves.
func injectedByTheWebhook(t *testing.T, labels, annotations map[string]string, ports ...corev1.ContainerPort) podFacts {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{api.PolicyAnnotation: "shop"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Ports: ports}}},
	}
	maps.Copy(pod.Annotations, annotations)
	plan, refusal := injection.Decide(pod, injection.Policies{Found: &injection.Policy{UID: "1", Generation: 1}}, injection.Options{SidecarImage: "sidecar"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	out := injection.Apply(pod, plan)
	return podFacts{labels: out.Labels, injected: injectedInto(out.Annotations[api.StatusAnnotation])}
}

func service(name string, selector map[string]string, ports ...corev1.ServicePort) corev1.Service {
	return corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Selector: selector, Ports: ports}}
}

func servicePort(port int32, target any) corev1.ServicePort {
	p := corev1.ServicePort{Port: port, Protocol: corev1.ProtocolTCP}
	switch target := target.(type) {
	case int:
		p.TargetPort = intstr.FromInt(target)
	case string:
		p.TargetPort = intstr.FromString(target)
	}
	return p
}

func says(ways []way) []string {
	var words []string
	for _, w := range ways {
		words = append(words, fmt.Sprintf("%t %s", w.toApplication, w.says))
	}
	return words
}

func TestWaysPastTheSidecar(t *testing.T) {
	app := map[string]string{"app": "shop"}
	named := injectedByTheWebhook(t, app, nil, corev1.ContainerPort{Name: "http", ContainerPort: 8080})
	unnamed := injectedByTheWebhook(t, app, nil, corev1.ContainerPort{ContainerPort: 8080})
	second := injectedByTheWebhook(t, app, map[string]string{api.PortAnnotation: "8080"},
		corev1.ContainerPort{Name: "http", ContainerPort: 8080}, corev1.ContainerPort{Name: "metrics", ContainerPort: 9090})
	redirected := named
	redirected.capture = "Redirect"
	moved := injectedByTheWebhook(t, map[string]string{"app": "shop", "version": "2"}, nil, corev1.ContainerPort{Name: "web", ContainerPort: 9000})

	with := func(change func(*corev1.Service), ports ...corev1.ServicePort) []corev1.Service {
		s := service("shop", maps.Clone(app), ports...)
		change(&s)
		return []corev1.Service{s}
	}
	to := func(ports ...corev1.ServicePort) []corev1.Service { return with(func(*corev1.Service) {}, ports...) }
	headless := func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }
	const pastIt = `true Service "shop" port 80 leads to the application's port 8080 past the sidecar: write targetPort: `
	tests := map[string]struct {
		services []corev1.Service
		pods     []podFacts
		want     []string
	}{
		"by the name that the sidecar has":           {to(servicePort(80, "http")), []podFacts{named}, nil},
		"by the sidecar's own name":                  {to(servicePort(80, "tokenward")), []podFacts{unnamed}, nil},
		"by the sidecar's number":                    {to(servicePort(80, 18080)), []podFacts{named}, nil},
		"to the metrics of the sidecar":              {to(servicePort(81, 18081), servicePort(82, "tokenward-admin")), []podFacts{named}, nil},
		"by the application's number":                {to(servicePort(80, 8080)), []podFacts{named}, []string{pastIt + "http"}},
		"by the application's number, no name":       {to(servicePort(80, 8080)), []podFacts{unnamed}, []string{pastIt + "tokenward"}},
		"without a target, which is the port itself": {to(servicePort(8080, nil)), []podFacts{named}, []string{`true Service "shop" port 8080 leads to the application's port 8080 past the sidecar: write targetPort: http`}},
		"without a protocol, which is TCP":           {to(corev1.ServicePort{Port: 80, TargetPort: intstr.FromInt32(8080)}), []podFacts{named}, []string{pastIt + "http"}},
		"to another port by its number": {
			to(servicePort(90, 9090)),
			[]podFacts{second},
			[]string{`false Service "shop" port 90 leads to port 9090 of the pods, which is not the sidecar's: write targetPort: http, or keep it if it is not the application`},
		},
		"to another port by its name": {
			to(servicePort(90, "metrics")),
			[]podFacts{second},
			[]string{`false Service "shop" port 90 leads to port metrics of the pods, which is not the sidecar's: write targetPort: http, or keep it if it is not the application`},
		},
		"over UDP to the application's number": {
			to(corev1.ServicePort{Port: 443, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(8080)}),
			[]podFacts{named},
			[]string{`false Service "shop" port 443 leads to UDP port 8080 of the pods, which the sidecar does not serve: remove it, or keep it if it is not the application`},
		},
		"headless, by name, at a port of its own": {with(headless, servicePort(80, "http")), []podFacts{named}, nil},
		"headless, by name, at the application's port": {
			with(headless, servicePort(8080, "http")),
			[]podFacts{named},
			[]string{`true Service "shop" port 8080 is of a headless Service, which leaves the port to the caller, and this one is the application's, past the sidecar: write port: 18080 and targetPort: http, and call that port`},
		},
		"headless, by number":      {with(headless, servicePort(80, 8080)), []podFacts{named}, []string{pastIt + "http"}},
		"without a selector":       {with(func(s *corev1.Service) { s.Spec.Selector = nil }, servicePort(80, 8080)), []podFacts{named}, nil},
		"a name of somewhere":      {with(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, servicePort(80, 8080)), []podFacts{named}, nil},
		"to other pods":            {with(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "other"} }, servicePort(80, 8080)), []podFacts{named}, nil},
		"to pods with more labels": {with(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "shop", "tier": "web"} }, servicePort(80, 8080)), []podFacts{named}, nil},
		"to an empty value, which a pod without the label has not": {with(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"tier": ""} }, servicePort(80, 8080)), []podFacts{named}, nil},
		"to redirected pods":               {to(servicePort(80, 8080), servicePort(81, 9090)), []podFacts{redirected}, nil},
		"to pods of which some redirect":   {to(servicePort(80, 8080)), []podFacts{redirected, named}, []string{pastIt + "http"}},
		"to pods of two shapes, the worse": {to(servicePort(80, 8080)), []podFacts{moved, named}, []string{pastIt + "http"}},
		"to pods of two shapes, the worse being the later": {
			to(servicePort(80, 9000)),
			[]podFacts{moved, named},
			[]string{`true Service "shop" port 80 leads to the application's port 9000 past the sidecar: write targetPort: web`},
		},
		"to the new shape alone": {
			with(func(s *corev1.Service) { s.Spec.Selector["version"] = "2" }, servicePort(80, 9000)),
			[]podFacts{moved, named},
			[]string{`true Service "shop" port 80 leads to the application's port 9000 past the sidecar: write targetPort: web`},
		},
		"a name in one shape, nothing checked in the other": {
			to(servicePort(80, "http")),
			[]podFacts{moved, named},
			[]string{`false Service "shop" port 80 leads to port http of the pods, which is not the sidecar's: write targetPort: web, or keep it if it is not the application`},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, says(waysPast(test.services, test.pods))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			slices.Reverse(test.pods)
			if diff := cmp.Diff(test.want, says(waysPast(test.services, test.pods))); diff != "" {
				t.Errorf("in the other order (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBypassableSaysWhatWasFound(t *testing.T) {
	pods := []podFacts{{labels: map[string]string{"app": "shop"}, injected: injected{capture: api.CapturePort, port: 8080, portName: "http"}}}
	redirected := []podFacts{{injected: injected{capture: "Redirect", port: 8080}}}
	other, past := way{says: "other"}, way{says: "past", toApplication: true}
	many := make([]way, 12)
	for i := range many {
		many[i] = way{says: strings.Repeat("x", 250)}
	}
	tests := map[string]struct {
		mode   api.NetworkPolicyMode
		pods   []podFacts
		ways   []way
		status metav1.ConditionStatus
		reason string
		says   []string
	}{
		"no pods":                      {api.NetworkPolicyNone, nil, nil, "False", api.ReasonNoPods, nil},
		"nothing found":                {api.NetworkPolicyNone, pods, nil, "False", api.ReasonNoneFound, []string{"spec.networkPolicy: Enforce closes"}},
		"nothing found, closed":        {api.NetworkPolicyEnforce, pods, nil, "False", api.ReasonNoneFound, []string{"NetworkPolicy tokenward-shop", "where the network enforces"}},
		"redirected":                   {api.NetworkPolicyNone, redirected, nil, "False", api.ReasonRedirected, nil},
		"some redirected":              {api.NetworkPolicyNone, slices.Concat(pods, redirected), nil, "False", api.ReasonNoneFound, nil},
		"a Service past it":            {api.NetworkPolicyNone, pods, []way{past, other}, "True", api.ReasonServicePastSidecar, []string{"past; other."}},
		"a Service to another port":    {api.NetworkPolicyNone, pods, []way{other}, "True", api.ReasonOtherPortServed, []string{"other."}},
		"a Service past it, closed":    {api.NetworkPolicyEnforce, pods, []way{past}, "True", api.ReasonServicePastSidecar, []string{"tokenward-shop keeps callers from"}},
		"more than a message can hold": {api.NetworkPolicyNone, pods, many, "True", api.ReasonOtherPortServed, []string{"; and 7 more."}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: api.TokenPolicySpec{NetworkPolicy: test.mode}}
			got := bypassable(&scope{policy: policy, running: test.pods, ways: test.ways})
			if got.Type != api.ConditionBypassable || got.Status != test.status || got.Reason != test.reason || got.Message == "" || len(got.Message) > 2000 {
				t.Errorf("%+v", got)
			}
			for _, part := range test.says {
				if !strings.Contains(got.Message, part) {
					t.Errorf("the message does not say %q: %s", part, got.Message)
				}
			}
		})
	}
}

// Ready stays as it is: what is to be mended is a Service.
func TestAWayRoundIsARemark(t *testing.T) {
	policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Name: "shop", Generation: 1}}
	without := conditions(&scope{policy: policy}, time.Unix(1000, 0))
	with := conditions(&scope{policy: policy, ways: []way{{says: "past", toApplication: true}}}, time.Unix(1000, 0))
	if diff := cmp.Diff(without[:2], with[:2]); diff != "" {
		t.Errorf("other conditions changed (-without +with):\n%s", diff)
	}
	if diff := cmp.Diff(without[2], with[2]); diff == "" {
		t.Error("Bypassable says the same")
	}
}

// BenchmarkWaysPast is a large namespace: ten thousand pods, a thousand Services of which
// one in ten selects them all. It bounds what one change of a pod costs.
func BenchmarkWaysPast(b *testing.B) {
	pods := make([]podFacts, 10_000)
	for i := range pods {
		pods[i] = podFacts{
			labels:   map[string]string{"app": "shop", "pod-template-hash": fmt.Sprint(i / 1000), "statefulset.kubernetes.io/pod-name": fmt.Sprint("shop-", i)},
			injected: injected{capture: api.CapturePort, port: 8080, portName: "http"},
		}
	}
	services := make([]corev1.Service, 1000)
	for i := range services {
		name := fmt.Sprint("shop-", i)
		selector := map[string]string{"statefulset.kubernetes.io/pod-name": name}
		if i%10 == 0 {
			selector = map[string]string{"app": "shop"}
		}
		services[i] = service(name, selector, servicePort(80, 8080))
	}
	for b.Loop() {
		if found := waysPast(services, pods); len(found) != len(services) {
			b.Fatal(len(found))
		}
	}
}
