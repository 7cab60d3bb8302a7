// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/probe"
)

func redirectPod(change ...func(*corev1.Pod)) *corev1.Pod {
	return annotatedPod(map[string]string{api.CaptureAnnotation: string(api.CaptureRedirect)}, change...)
}

func httpGet(path string, port intstr.IntOrString) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: port}}
}

func TestRefusalsUnderRedirect(t *testing.T) {
	hook := &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/stop", Port: intstr.FromString("http")}}
	tests := map[string]struct {
		change  func(*corev1.Pod)
		verdict Verdict
		message string
	}{
		"the host's network": {
			func(p *corev1.Pod) { p.Spec.HostNetwork = true }, PodUnsupported,
			`spec.hostNetwork=true: the sidecar would listen on the node's own address and the application's port stay open there: remove hostNetwork or the annotation tokenward.io/policy`,
		},
		"a container named like the init container": {
			addContainer("tokenward-redirect"), NameTaken,
			`container "tokenward-redirect" has the name of one of the sidecar's containers: rename it, or remove it if it was copied from a running pod`,
		},
		"a preStop hook over HTTP": {
			func(p *corev1.Pod) { p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: hook} }, PodUnsupported,
			`the preStop hook of container "app" is a request to the application's port 8080, where the kubelet meets the sidecar under capture Redirect: use exec or sleep for the hook, or another port`,
		},
		"a postStart hook over HTTP": {
			func(p *corev1.Pod) { p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: hook} }, PodUnsupported,
			`the postStart hook of container "app" is a request to the application's port 8080, where the kubelet meets the sidecar under capture Redirect: use exec or sleep for the hook, or another port`,
		},
		"HTTP/3 on the same port": {
			appPorts(corev1.ContainerPort{ContainerPort: 8080}, corev1.ContainerPort{ContainerPort: 8080, Protocol: corev1.ProtocolUDP}), PortProtocol,
			`container "app" declares the application's port 8080 for UDP too: the sidecar speaks HTTP over TCP only, and under capture Redirect nothing else reaches that port: remove the declaration, or use another port for UDP`,
		},
		"a probe of a running pod that was copied": {
			func(p *corev1.Pod) {
				p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: httpGet("/probes/app/readiness", intstr.FromInt32(18081))}
			}, PortTaken,
			`the readiness probe of container "app" goes to the sidecar's port 18081, as in a running pod that this one was copied from: write the probe as the application declares it`,
		},
		"another port with the name of the application's": {
			func(p *corev1.Pod) {
				addContainer("other", corev1.ContainerPort{Name: "http", ContainerPort: 9090})(p)
				p.Annotations[api.PortAnnotation] = "8080"
			}, PortNameTaken,
			`container "other" calls its port 9090 "http", as the application's port 8080 is called: rename that port`,
		},
		"a port with the name of the sidecar's": {
			appPorts(corev1.ContainerPort{Name: "tokenward", ContainerPort: 8080}), PortNameTaken,
			`container "app" calls its port 8080 "tokenward", the name that the sidecar's port gets: rename that port`,
		},
		"probes that are too long": {
			func(p *corev1.Pod) {
				p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: httpGet(strings.Repeat("a", probe.MaxBytes), intstr.FromInt32(8080))}
			}, PodUnsupported,
			`the probes of the application's port 8080 are too long for capture Redirect, the probes take 32848 bytes, and 32768 is the limit: shorten their paths and headers`,
		},
		"too many probes": {
			func(p *corev1.Pod) {
				for i := range maxProbes + 1 {
					addContainer(fmt.Sprint("c", i))(p)
					p.Spec.Containers[i+1].LivenessProbe = &corev1.Probe{ProbeHandler: httpGet("/", intstr.FromInt32(8080))}
				}
			}, PodUnsupported,
			`the pod has 65 probes of the application's port 8080, and the sidecar runs 64 at most under capture Redirect: declare fewer`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, refusal := Decide(redirectPod(tt.change), shop, testOptions)
			if refusal == nil {
				t.Fatal("not refused")
			}
			if refusal.Verdict != tt.verdict || refusal.Message != tt.message {
				t.Errorf("got  %s: %s\nwant %s: %s", refusal.Verdict, refusal.Message, tt.verdict, tt.message)
			}
		})
	}
}

// What a Redirect pod must not lose, and what must not come in, once it is injected.
func TestFalseClaimsOfRedirectAreRefused(t *testing.T) {
	probed := func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: httpGet("/ready", intstr.FromString("http"))}
	}
	const says = "annotation tokenward.io/status says that the pod has the sidecar, but "
	for name, tt := range map[string]struct {
		change  func(*corev1.Pod)
		verdict Verdict
		message string
	}{
		"no init container": {
			func(p *corev1.Pod) { p.Spec.InitContainers = p.Spec.InitContainers[1:] }, StatusForeign,
			says + "there is no init container tokenward-redirect: ",
		},
		"an init container that comes late": {
			func(p *corev1.Pod) { slices.Reverse(p.Spec.InitContainers) }, StatusForeign,
			says + "its init container tokenward-redirect comes after the sidecar: ",
		},
		"an init container that stays": {
			func(p *corev1.Pod) {
				p.Spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
			}, StatusForeign,
			says + "its init container tokenward-redirect has restartPolicy Always: ",
		},
		"an init container for another port": {
			func(p *corev1.Pod) { p.Spec.InitContainers[0].Args[0] = "--port=1" }, StatusForeign,
			says + "its init container tokenward-redirect lacks the argument --port=8080: ",
		},
		"Port capture now": {
			func(p *corev1.Pod) { delete(p.Annotations, api.CaptureAnnotation) }, StatusMismatch,
			`annotation tokenward.io/status says that the pod was injected for capture "Redirect", but tokenward.io/capture="Port": `,
		},
		"a probe written since": {
			func(p *corev1.Pod) {
				p.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: httpGet("/", intstr.FromInt32(8080))}
			}, StatusForeign,
			says + `the liveness probe of container "app" goes to the application's port 8080, where it meets the sidecar: `,
		},
		"a list without a probe": {
			func(p *corev1.Pod) { c := &p.Spec.InitContainers[1]; c.Args = c.Args[:len(c.Args)-1] }, StatusForeign,
			says + `the sidecar does not know the readiness probe of container "app": `,
		},
		"a list of another version": {
			func(p *corev1.Pod) {
				c := &p.Spec.InitContainers[1]
				c.Args[len(c.Args)-1] = `--probes={"version":2}`
			}, StatusForeign,
			says + "the list of probes has version 2, and this release reads version 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := redirectPod(probed)
			plan, refusal := Decide(pod, shop, testOptions)
			if refusal != nil {
				t.Fatal(refusal)
			}
			pod = Apply(pod, plan)
			tt.change(pod)
			if _, refusal = Decide(pod, shop, testOptions); refusal == nil {
				t.Fatal("not refused")
			}
			if refusal.Verdict != tt.verdict || !strings.HasPrefix(refusal.Message, tt.message) {
				t.Errorf("got  %s: %s\nwant %s: %s", refusal.Verdict, refusal.Message, tt.verdict, tt.message)
			}
		})
	}
}

func TestDeclaredProbesReachTheSidecar(t *testing.T) {
	service, tls, h2 := "shop", corev1.GRPCProbeModeTLS, corev1.HTTPProtocolHTTP2
	for name, tt := range map[string]struct {
		handler corev1.ProbeHandler
		want    *probe.Probe
	}{
		"by name":              {httpGet("/a", intstr.FromString("http")), &probe.Probe{HTTP: &probe.HTTP{Path: "/a"}}},
		"by number":            {httpGet("/a", intstr.FromInt32(8080)), &probe.Probe{HTTP: &probe.HTTP{Path: "/a"}}},
		"by number as a name":  {httpGet("/a", intstr.FromString("8080")), &probe.Probe{HTTP: &probe.HTTP{Path: "/a"}}},
		"of another port":      {httpGet("/a", intstr.FromInt32(9090)), nil},
		"of another host":      {corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: "example.com", Port: intstr.FromInt32(8080)}}, nil},
		"over TLS":             {corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Scheme: "HTTPS", Port: intstr.FromInt32(8080)}}, &probe.Probe{HTTP: &probe.HTTP{TLS: true}}},
		"over HTTP/2":          {corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Protocol: &h2, Port: intstr.FromInt32(8080)}}, &probe.Probe{HTTP: &probe.HTTP{H2C: true}}},
		"a connection":         {corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}, &probe.Probe{TCP: &probe.TCP{}}},
		"gRPC":                 {corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080}}, &probe.Probe{GRPC: &probe.GRPC{}}},
		"gRPC of a service":    {corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080, Service: &service}}, &probe.Probe{GRPC: &probe.GRPC{Service: "shop"}}},
		"gRPC over TLS":        {corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080, Mode: &tls}}, &probe.Probe{GRPC: &probe.GRPC{TLS: true}}},
		"gRPC on another port": {corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9090}}, nil},
		"a command":            {corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			pod := redirectPod(func(p *corev1.Pod) {
				p.Spec.Containers[0].StartupProbe = &corev1.Probe{ProbeHandler: tt.handler, PeriodSeconds: 7}
			})
			plan, refusal := Decide(pod, shop, testOptions)
			if refusal != nil {
				t.Fatal(refusal)
			}
			out := Apply(pod, plan)
			requireStable(t, out)
			args := out.Spec.InitContainers[1].Args
			value, listed := strings.CutPrefix(args[len(args)-1], "--probes=")
			is := out.Spec.Containers[0].StartupProbe
			if tt.want == nil {
				if listed || relaysTo(is) != "" {
					t.Errorf("relayed: %s, %+v", value, is)
				}
				return
			}
			got, err := probe.Parse(value)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.TimeoutSeconds = 1
			want, _ := probe.Encode(map[string]probe.Probe{"app/startup": *tt.want})
			if again, _ := probe.Encode(got); again != want {
				t.Errorf("got %s, want %s", again, want)
			}
			if relaysTo(is) != "app/startup" || actions(is) != 1 || is.PeriodSeconds != 7 {
				t.Errorf("the kubelet is told %+v", is)
			}
		})
	}
}
