// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

func injectedPod(t *testing.T, change ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod := annotatedPod(nil)
	plan, refusal := Decide(pod, shop, testOptions)
	if refusal != nil {
		t.Fatal(refusal)
	}
	out := Apply(pod, plan)
	for _, c := range change {
		c(out)
	}
	return out
}

// What other webhooks, and people with copies of running pods, do to an injected pod.
func TestInjectedPodsAreLeftAlone(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"nothing":        func(*corev1.Pod) {},
		"another image":  func(p *corev1.Pod) { p.Spec.InitContainers[0].Image = "mirror.example/tokenward:v0.1.0" },
		"an environment": func(p *corev1.Pod) { p.Spec.InitContainers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}} },
		"another memory limit": func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Resources.Limits[corev1.ResourceMemory] = resource.MustParse("1Gi")
		},
		"a mount in ours": func(p *corev1.Pod) {
			p.Spec.InitContainers[0].VolumeMounts = append(p.Spec.InitContainers[0].VolumeMounts, corev1.VolumeMount{Name: "ca", MountPath: "/ca"})
		},
		"an init container before ours": func(p *corev1.Pod) {
			p.Spec.InitContainers = append([]corev1.Container{{Name: "early"}}, p.Spec.InitContainers...)
		},
		"a second port, with none chosen": addContainer("proxy", corev1.ContainerPort{Name: "proxy", ContainerPort: 15090}),
		"the port chosen by its number":   func(p *corev1.Pod) { p.Annotations[api.PortAnnotation] = "8080" },
		"the port chosen by its old name": func(p *corev1.Pod) { p.Annotations[api.PortAnnotation] = "http" },
		"arguments of another build": func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Args = []string{"--new-flag"}
			p.Annotations[api.StatusAnnotation] = strings.Replace(p.Annotations[api.StatusAnnotation], Template(testOptions), "0123456789abcdef", 1)
		},
	} {
		t.Run(name, func(t *testing.T) { requireStable(t, injectedPod(t, change)) })
	}
}

func TestLostLabelComesBack(t *testing.T) {
	pod := injectedPod(t, func(p *corev1.Pod) { p.Labels = nil })
	plan, refusal := Decide(pod, shop, testOptions)
	if refusal != nil {
		t.Fatal(refusal)
	}
	out := Apply(pod, plan)
	if out.Labels[api.InjectedLabel] != "true" || out.Labels[api.InjectedPolicyLabel] != "shop" || out.Labels[api.InjectedCaptureLabel] != "Port" {
		t.Errorf("labels: %v", out.Labels)
	}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	requireSame(t, "the patch", out, parsePod(t, mustPatch(t, raw, plan, pod)))
}

// A label of another policy would have the pod closed by a NetworkPolicy that is not its own.
func TestTheLabelNamesThePolicyWhateverItSaidBefore(t *testing.T) {
	said := map[string]func(*corev1.Pod){
		"before the sidecar": func(p *corev1.Pod) { p.Labels = map[string]string{"app": "shop", api.InjectedPolicyLabel: "other"} },
		"by a pod of a release without it": func(p *corev1.Pod) {
			*p = *injectedPod(t, func(p *corev1.Pod) { delete(p.Labels, api.InjectedPolicyLabel) })
		},
		"by a copy of an injected pod": func(p *corev1.Pod) {
			*p = *injectedPod(t, func(p *corev1.Pod) { p.Labels[api.InjectedPolicyLabel] = "other" })
		},
	}
	for name, change := range said {
		t.Run(name, func(t *testing.T) {
			pod := annotatedPod(nil)
			change(pod)
			plan, refusal := Decide(pod, shop, testOptions)
			if refusal != nil {
				t.Fatal(refusal)
			}
			out := Apply(pod, plan)
			if out.Labels[api.InjectedPolicyLabel] != "shop" {
				t.Errorf("labels: %v", out.Labels)
			}
			raw, err := json.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			requireSame(t, "the patch", out, parsePod(t, mustPatch(t, raw, plan, pod)))
		})
	}
}

func TestFalseClaimsOfInjectionAreRefused(t *testing.T) {
	const remedy = ": remove that annotation, the init containers tokenward and tokenward-redirect, and the volumes tokenward-settings and tokenward-identity, write the probes as the application declares them, and the pod is injected anew"
	tests := map[string]struct {
		change  func(*corev1.Pod)
		verdict Verdict
		message string
	}{
		"a status without a sidecar": {
			func(p *corev1.Pod) { p.Spec.InitContainers = nil }, StatusForeign,
			"annotation tokenward.io/status says that the pod has the sidecar, but there is no init container tokenward" + remedy,
		},
		"a status that is not ours": {
			func(p *corev1.Pod) { p.Annotations[api.StatusAnnotation] = "injected" }, StatusForeign,
			`annotation tokenward.io/status="injected" was not written by Tokenward` + remedy,
		},
		"a status that says nothing": {
			func(p *corev1.Pod) { p.Annotations[api.StatusAnnotation] = "{}" }, StatusForeign,
			`annotation tokenward.io/status="{}" was not written by Tokenward` + remedy,
		},
		"another policy now": {
			func(p *corev1.Pod) { p.Annotations[api.PolicyAnnotation] = "billing" }, StatusMismatch,
			`annotation tokenward.io/status says that the pod was injected for policy "shop", but tokenward.io/policy="billing"` + remedy,
		},
		"another port now": {
			func(p *corev1.Pod) { p.Annotations[api.PortAnnotation] = "9090" }, StatusMismatch,
			`annotation tokenward.io/status says that the pod was injected for port 8080, but tokenward.io/port="9090"` + remedy,
		},
		"a sidecar that ends": {
			func(p *corev1.Pod) { p.Spec.InitContainers[0].RestartPolicy = nil }, StatusForeign,
			"annotation tokenward.io/status says that the pod has the sidecar, but its container has no restartPolicy Always" + remedy,
		},
		"a sidecar in front of another port": {
			func(p *corev1.Pod) { p.Spec.InitContainers[0].Args[2] = "--upstream=127.0.0.1:1" }, StatusForeign,
			"annotation tokenward.io/status says that the pod has the sidecar, but its container lacks the argument --upstream=127.0.0.1:8080" + remedy,
		},
		"a sidecar without its port": {
			func(p *corev1.Pod) { p.Spec.InitContainers[0].Ports = p.Spec.InitContainers[0].Ports[1:] }, StatusForeign,
			"annotation tokenward.io/status says that the pod has the sidecar, but its container lacks port 18080" + remedy,
		},
		"a sidecar without its identity": {
			func(p *corev1.Pod) { p.Spec.InitContainers[0].VolumeMounts = p.Spec.InitContainers[0].VolumeMounts[:1] }, StatusForeign,
			"annotation tokenward.io/status says that the pod has the sidecar, but volume tokenward-identity is missing" + remedy,
		},
		"a pod without the settings": {
			func(p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[1:] }, StatusForeign,
			"annotation tokenward.io/status says that the pod has the sidecar, but volume tokenward-settings is missing" + remedy,
		},
		"a port added on ours": {
			addContainer("proxy", corev1.ContainerPort{ContainerPort: 18080}), PortTaken,
			`container "proxy" declares port 18080, which is the sidecar's (18080 for requests, 18081 for health and metrics): let the container listen on another port`,
		},
		"a container added with the application's port name": {
			addContainer("proxy", corev1.ContainerPort{Name: "http", ContainerPort: 9090}), PortNameTaken,
			`container "proxy" calls its port 9090 "http", the name that the sidecar's port gets: rename that port`,
		},
		"the name put back": {
			func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].Name = "http" }, PortNameTaken,
			`container "app" calls its port 8080 "http", the name that the sidecar's port gets: rename that port`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, refusal := Decide(injectedPod(t, tt.change), shop, testOptions)
			if refusal == nil {
				t.Fatal("not refused")
			}
			if refusal.Verdict != tt.verdict || refusal.Message != tt.message {
				t.Errorf("got  %s: %s\nwant %s: %s", refusal.Verdict, refusal.Message, tt.verdict, tt.message)
			}
		})
	}
}

func TestTemplate(t *testing.T) {
	template := Template(testOptions)
	if len(template) != 16 {
		t.Errorf("template %q has not 16 digits", template)
	}
	pod := annotatedPod(map[string]string{api.SidecarCPULimitAnnotation: "1", api.PortAnnotation: "8080"})
	plan, refusal := Decide(pod, shop, testOptions)
	if refusal != nil {
		t.Fatal(refusal)
	}
	status, err := ParseStatus(Apply(pod, plan).Annotations[api.StatusAnnotation])
	if err != nil || status.Template != template {
		t.Errorf("what a pod asks for itself must not change the template: %+v, %v", status, err)
	}
	other := testOptions
	other.SidecarImage = "example.com/tokenward:v0.2.0"
	if Template(other) == template {
		t.Error("another image must change the template")
	}
}

// The sidecar must meet the "restricted" standard also where the pod says otherwise.
func TestSidecarKeepsItsOwnSecurityContext(t *testing.T) {
	pod := annotatedPod(nil)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(0)), RunAsNonRoot: new(false)}
	plan, refusal := Decide(pod, shop, testOptions)
	if refusal != nil {
		t.Fatal(refusal)
	}
	s := Apply(pod, plan).Spec.InitContainers[0].SecurityContext
	if *s.RunAsUser != 65532 || !*s.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem {
		t.Errorf("security context: %+v", s)
	}
}
