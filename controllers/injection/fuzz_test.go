// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// FuzzInject throws anything at all that parses as a pod at the injector.
func FuzzInject(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range append(seeds, "testdata/named-port.out.yaml") {
		f.Add(readJSON(f, path))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		pod := &corev1.Pod{}
		if err := json.Unmarshal(raw, pod); err != nil {
			return
		}
		// As the API server does: what reaches us was written by its own encoder.
		raw, err := json.Marshal(pod)
		if err != nil {
			return
		}
		checkInjection(t, pod, raw)
	})
}

// TestInjectProperties draws pods from few names and numbers, so that they clash often.
func TestInjectProperties(t *testing.T) {
	injected := 0
	rapid.Check(t, func(r *rapid.T) {
		pod := drawPod(r)
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		if checkInjection(r, pod, raw) == Injected {
			injected++
		}
	})
	if injected == 0 {
		t.Error("no pod was injected: the properties were not tested")
	}
}

// checker is what the checks need of a test, a fuzz target or a rapid property.
type checker interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkInjection holds for every pod: the patch does what Apply does, the sidecar
// comes first, the application's containers change in port names and handlers only,
// and a second pass does nothing.
func checkInjection(t checker, pod *corev1.Pod, raw []byte) Verdict {
	t.Helper()
	before := pod.DeepCopy()
	plan, refusal := Decide(pod, shop, testOptions)
	if refusal != nil {
		if refusal.Message == "" || refusal.Verdict == "" {
			t.Fatalf("refused without a reason: %+v", refusal)
		}
		return refusal.Verdict
	}
	out := Apply(pod, plan)
	if !equality.Semantic.DeepEqual(before, pod) {
		t.Fatalf("the pod given was changed")
	}
	if same := applied(t, plan, pod, raw); !equality.Semantic.DeepEqual(out, same) {
		t.Fatalf("Apply and Patch disagree:\n%+v\n%+v", out, same)
	}
	if plan.Verdict != Injected {
		return plan.Verdict
	}
	ours := out.Spec.InitContainers
	if plan.Status.Capture == api.CaptureRedirect {
		if ours[0].Name != RedirectContainerName || isNative(&ours[0]) {
			t.Fatalf("the first init container is %q", ours[0].Name)
		}
		ours = ours[1:]
	}
	if ours[0].Name != ContainerName || !isNative(&ours[0]) {
		t.Fatalf("where the sidecar belongs is %q", ours[0].Name)
	}
	was := append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...)
	is := append(slices.Clone(ours[1:]), out.Spec.Containers...)
	if len(was) != len(is) {
		t.Fatalf("%d containers became %d", len(was), len(is))
	}
	for i := range was {
		what := anonymous
		switch {
		case plan.Status.Capture == api.CaptureRedirect:
			what = unprobed
		case i < len(pod.Spec.InitContainers):
			what = (*corev1.Container).DeepCopy
		}
		if was, is := what(&was[i]), what(&is[i]); !equality.Semantic.DeepEqual(was, is) {
			t.Fatalf("more than may change has changed in container %d:\n%+v\n%+v", i, was, is)
		}
	}
	resolves(t, out, plan.Status)
	again, refusal := Decide(out, shop, testOptions)
	if refusal != nil {
		t.Fatalf("the second pass refuses: %v", refusal)
	}
	if patch, err := again.Patch(out); again.Verdict != AlreadyInjected || patch != nil || err != nil {
		t.Fatalf("the second pass is not idle: %s %s %v", again.Verdict, patch, err)
	}
	return plan.Verdict
}

// resolves looks the name of the application's port up as the endpoint controllers do.
func resolves(t checker, pod *corev1.Pod, status Status) {
	t.Helper()
	if status.PortName == "" {
		return
	}
	want := int32(ListenPort)
	if status.Capture == api.CaptureRedirect { // the rules do the rest
		want = status.Port
	}
	for _, c := range append(append([]corev1.Container{}, pod.Spec.Containers...), pod.Spec.InitContainers...) {
		for _, p := range c.Ports {
			if p.Name == status.PortName && isTCP(p) {
				if p.ContainerPort != want || (c.Name == ContainerName) != (status.Capture == api.CapturePort) {
					t.Fatalf("the name %q leads to port %d of container %q", p.Name, p.ContainerPort, c.Name)
				}
				return
			}
		}
	}
	t.Fatalf("the name %q leads nowhere", status.PortName)
}

// anonymous is a container without the things that a takeover may change.
func anonymous(c *corev1.Container) *corev1.Container {
	out := c.DeepCopy()
	for i := range out.Ports {
		out.Ports[i].Name = ""
	}
	for _, h := range handlers() {
		if port := h.port(out); port != nil {
			*port = intstr.FromInt32(0)
		}
	}
	return out
}

// unprobed is a container without what its probes do, which Redirect capture may change.
func unprobed(c *corev1.Container) *corev1.Container {
	out := c.DeepCopy()
	for _, kind := range probeKinds() {
		if p := probeOf(out, kind); p != nil {
			p.ProbeHandler = corev1.ProbeHandler{}
		}
	}
	return out
}

func applied(t checker, plan Plan, pod *corev1.Pod, raw []byte) *corev1.Pod {
	t.Helper()
	out := &corev1.Pod{}
	if err := json.Unmarshal(mustPatch(t, raw, plan, pod), out); err != nil {
		t.Fatalf("read the patched pod: %v", err)
	}
	return out
}

func drawPod(r *rapid.T) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Annotations = map[string]string{api.PolicyAnnotation: "shop"}
	if rapid.Bool().Draw(r, "chosen") {
		pod.Annotations[api.PortAnnotation] = rapid.SampledFrom([]string{"http", "web", "8080", "9090", "18080"}).Draw(r, "port")
	}
	if rapid.Bool().Draw(r, "redirected") {
		pod.Annotations[api.CaptureAnnotation] = string(api.CaptureRedirect)
	}
	for i := range rapid.IntRange(1, 3).Draw(r, "containers") {
		pod.Spec.Containers = append(pod.Spec.Containers, drawContainer(r, i))
	}
	for i := range rapid.IntRange(0, 2).Draw(r, "init containers") {
		c := drawContainer(r, 10+i)
		if rapid.Bool().Draw(r, "native") {
			c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	}
	return pod
}

func drawContainer(r *rapid.T, i int) corev1.Container {
	names := []string{"", "http", "web", "admin", "tokenward"}
	c := corev1.Container{Name: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(r, "name") + string(rune('a'+i))}
	for range rapid.IntRange(0, 2).Draw(r, "ports") {
		c.Ports = append(c.Ports, corev1.ContainerPort{
			Name:          rapid.SampledFrom(names).Draw(r, "port name"),
			ContainerPort: rapid.SampledFrom([]int32{8080, 8080, 9090, 53, 18081}).Draw(r, "number"),
			Protocol:      rapid.SampledFrom([]corev1.Protocol{"", corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP}).Draw(r, "protocol"),
		})
	}
	if rapid.Bool().Draw(r, "probed") {
		c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString(rapid.SampledFrom(names).Draw(r, "probe"))}}}
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: rapid.SampledFrom([]corev1.ProbeHandler{
			{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}},
			{GRPC: &corev1.GRPCAction{Port: 9090}},
			{GRPC: &corev1.GRPCAction{Port: 8080}, TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}},
			{Exec: &corev1.ExecAction{}},
			{HTTPGet: &corev1.HTTPGetAction{Path: "/probes/x", Port: intstr.FromInt32(18081)}},
		}).Draw(r, "readiness")}
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString(rapid.SampledFrom(names).Draw(r, "hook"))}}}
	}
	return c
}
