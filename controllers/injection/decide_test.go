// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// annotatedPod is a pod that would be injected, with what a test changes about it.
func annotatedPod(annotations map[string]string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Annotations = map[string]string{api.PolicyAnnotation: "shop"}
	maps.Copy(pod.Annotations, annotations)
	pod.Spec.Containers = []corev1.Container{{Name: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	for _, c := range change {
		c(pod)
	}
	return pod
}

func addContainer(name string, ports ...corev1.ContainerPort) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Ports: ports})
	}
}

func addInit(name string, native bool, ports ...corev1.ContainerPort) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		c := corev1.Container{Name: name, Ports: ports}
		if native {
			c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	}
}

func appPorts(ports ...corev1.ContainerPort) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.Containers[0].Ports = ports }
}

func TestRefusals(t *testing.T) {
	type annotations = map[string]string
	type port = corev1.ContainerPort
	named := func(name string, number int32) port { return port{Name: name, ContainerPort: number} }
	tests := map[string]struct {
		annotations annotations
		change      func(*corev1.Pod)
		policies    *Policies
		verdict     Verdict
		message     string
	}{
		"a policy with a typo": {
			annotations: annotations{api.PolicyAnnotation: "shpo"}, policies: &Policies{Known: []string{"billing", "shop"}},
			verdict: PolicyNotFound,
			message: `annotation tokenward.io/policy="shpo": there is no TokenPolicy of that name in the pod's namespace: did you mean "shop"?`,
		},
		"a policy like no other": {
			annotations: annotations{api.PolicyAnnotation: "warehouse"}, policies: &Policies{Known: []string{"shop", "billing"}},
			verdict: PolicyNotFound,
			message: `annotation tokenward.io/policy="warehouse": there is no TokenPolicy of that name in the pod's namespace: create it, or name "billing" or "shop"`,
		},
		"a policy in a namespace without any": {
			policies: &Policies{}, verdict: PolicyNotFound,
			message: `annotation tokenward.io/policy="shop": there is no TokenPolicy of that name in the pod's namespace: create it first, the namespace has none`,
		},
		"an empty policy name": {
			annotations: annotations{api.PolicyAnnotation: ""}, policies: &Policies{Found: &Policy{}, Known: []string{"shop"}},
			verdict: PolicyNotFound,
			message: `annotation tokenward.io/policy="": there is no TokenPolicy of that name in the pod's namespace: create it, or name "shop"`,
		},
		"a policy that is being deleted": {
			policies: &Policies{Found: &Policy{Deleting: true}}, verdict: PolicyDeleting,
			message: `annotation tokenward.io/policy="shop": TokenPolicy "shop" is being deleted: name another one, or create the pod again once it is back`,
		},
		"an annotation with a typo": {
			annotations: annotations{"tokenward.io/prot": "8080"}, verdict: AnnotationUnknown,
			message: `annotation "tokenward.io/prot"="8080" is not known: did you mean tokenward.io/port?`,
		},
		"an annotation that would set the image": {
			annotations: annotations{"tokenward.io/image": "evil.example/x"}, verdict: AnnotationUnknown,
			message: `annotation "tokenward.io/image"="evil.example/x" is not known: remove it, or use tokenward.io/policy, tokenward.io/port, tokenward.io/capture, tokenward.io/sidecar-cpu-request, tokenward.io/sidecar-cpu-limit, tokenward.io/sidecar-memory-request or tokenward.io/sidecar-memory-limit`,
		},
		"an annotation of another kind": {
			annotations: annotations{"tokenward.io/sidecar-security-context": "{}"}, verdict: AnnotationUnknown,
			message: `annotation "tokenward.io/sidecar-security-context"="{}" is not known: remove it, or use tokenward.io/policy, tokenward.io/port, tokenward.io/capture, tokenward.io/sidecar-cpu-request, tokenward.io/sidecar-cpu-limit, tokenward.io/sidecar-memory-request or tokenward.io/sidecar-memory-limit`,
		},
		"an annotation written as a label": {
			change:  func(p *corev1.Pod) { p.Labels = map[string]string{api.PortAnnotation: "8080"} },
			verdict: AnnotationUnknown,
			message: `label "tokenward.io/port"="8080" has no effect: make it an annotation of the pod`,
		},
		"a label that means nothing": {
			change:  func(p *corev1.Pod) { p.Labels = map[string]string{"tokenward.io/x": "y"} },
			verdict: AnnotationUnknown, message: `label "tokenward.io/x"="y" is not known: remove it`,
		},
		"a capture that there is not": {
			annotations: annotations{api.CaptureAnnotation: "redirect"}, verdict: CaptureUnsupported,
			message: `annotation tokenward.io/capture="redirect": there are "Port" and "Redirect": write one of them, or remove the annotation`,
		},
		"the host's network": {
			change: func(p *corev1.Pod) { p.Spec.HostNetwork = true }, verdict: PodUnsupported,
			message: `spec.hostNetwork=true: the sidecar would listen on the node's own address and the application's port stay open there: remove hostNetwork or the annotation tokenward.io/policy`,
		},
		"a Windows pod": {
			change: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, verdict: PodUnsupported,
			message: `spec.os.name=windows: the sidecar runs on Linux only: remove the annotation tokenward.io/policy`,
		},
		"a static pod": {
			annotations: annotations{corev1.MirrorPodAnnotationKey: "x"}, verdict: PodUnsupported,
			message: `a static pod is run from a file on its node and cannot be given a sidecar: remove the annotation tokenward.io/policy from the file, or create the pod through the API`,
		},
		"a container named like the sidecar": {
			change: addContainer("tokenward"), verdict: NameTaken,
			message: `container "tokenward" has the name of one of the sidecar's containers: rename it, or remove it if it was copied from a running pod`,
		},
		"an init container named like the sidecar": {
			change: addInit("tokenward", true), verdict: NameTaken,
			message: `container "tokenward" has the name of one of the sidecar's containers: rename it, or remove it if it was copied from a running pod`,
		},
		"a volume named like one of ours": {
			change:  func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "tokenward-identity"}} },
			verdict: NameTaken,
			message: `volume "tokenward-identity" has the name of one of the sidecar's volumes: rename it, or remove it if it was copied from a running pod`,
		},
		"no port at all": {
			change: appPorts(), verdict: PortNotDeclared,
			message: `no container of the pod declares a port: declare the application's under spec.containers[].ports`,
		},
		"a port named but none declared": {
			annotations: annotations{api.PortAnnotation: "8080"}, change: appPorts(), verdict: PortNotDeclared,
			message: `annotation tokenward.io/port="8080": no container of the pod declares a TCP port: declare this one under spec.containers[].ports`,
		},
		"a port number with a typo": {
			annotations: annotations{api.PortAnnotation: "8008"}, verdict: PortNotDeclared,
			message: `annotation tokenward.io/port="8008": no container declares this TCP port: did you mean "8080"?`,
		},
		"a port name with a typo": {
			annotations: annotations{api.PortAnnotation: "htp"}, verdict: PortNotDeclared,
			message: `annotation tokenward.io/port="htp": no container declares this TCP port: did you mean "http"?`,
		},
		"a port like no other": {
			annotations: annotations{api.PortAnnotation: "metrics"}, verdict: PortNotDeclared,
			message: `annotation tokenward.io/port="metrics": no container declares this TCP port: declare it, or name 8080 "http" (container "app")`,
		},
		"a port of an init container": {
			annotations: annotations{api.PortAnnotation: "7777"}, change: addInit("setup", false, named("setup", 7777)), verdict: PortNotDeclared,
			message: `annotation tokenward.io/port="7777": no container declares this TCP port: declare it, or name 8080 "http" (container "app")`,
		},
		"two ports and none chosen": {
			change: appPorts(named("http", 8080), port{ContainerPort: 9090}), verdict: PortAmbiguous,
			message: `the pod declares 2 TCP ports, 8080 "http" (container "app") or 9090 (container "app"): say with the annotation tokenward.io/port which one is the application's`,
		},
		"a number that two containers declare": {
			annotations: annotations{api.PortAnnotation: "8080"}, change: addContainer("other", port{ContainerPort: 8080}), verdict: PortAmbiguous,
			message: `annotation tokenward.io/port="8080": 8080 "http" (container "app") or 8080 (container "other") are both meant: declare the port once`,
		},
		"a name whose number has another name": {
			annotations: annotations{api.PortAnnotation: "http"}, change: appPorts(named("http", 8080), named("web", 8080)), verdict: PortAmbiguous,
			message: `the application's port is declared more than once, as 8080 "http" (container "app") or 8080 "web" (container "app"): declare it once`,
		},
		"port 0": {
			annotations: annotations{api.PortAnnotation: "0"}, verdict: PortInvalid,
			message: `annotation tokenward.io/port="0": a port number is 1 to 65535, without sign or leading zeros`,
		},
		"a port out of range": {
			annotations: annotations{api.PortAnnotation: "65536"}, verdict: PortInvalid,
			message: `annotation tokenward.io/port="65536": a port number is 1 to 65535, without sign or leading zeros`,
		},
		"a port with leading zeros": {
			annotations: annotations{api.PortAnnotation: "08080"}, verdict: PortInvalid,
			message: `annotation tokenward.io/port="08080": a port number is 1 to 65535, without sign or leading zeros`,
		},
		"an empty port": {
			annotations: annotations{api.PortAnnotation: ""}, verdict: PortInvalid,
			message: `annotation tokenward.io/port="": a port number is 1 to 65535, without sign or leading zeros`,
		},
		"a port name that cannot be one": {
			annotations: annotations{api.PortAnnotation: "HTTP port"}, verdict: PortInvalid,
			message: `annotation tokenward.io/port="HTTP port": this is neither a port number nor a port name, a name must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)`,
		},
		"a declared port that is none": {
			change: appPorts(named("http", 70000)), verdict: PortInvalid,
			message: `70000 "http" (container "app"): a port number is 1 to 65535`,
		},
		"the only port is UDP": {
			change: appPorts(port{ContainerPort: 53, Protocol: corev1.ProtocolUDP}), verdict: PortProtocol,
			message: `container "app" declares port 53 for "UDP": only TCP ports can be protected, declare the one that speaks HTTP`,
		},
		"the chosen port is SCTP": {
			annotations: annotations{api.PortAnnotation: "sig"},
			change:      appPorts(named("http", 8080), port{Name: "sig", ContainerPort: 132, Protocol: corev1.ProtocolSCTP}), verdict: PortProtocol,
			message: `container "app" declares port 132 for "SCTP": only TCP ports can be protected, declare the one that speaks HTTP`,
		},
		"a port on the node": {
			change: appPorts(port{ContainerPort: 8080, HostPort: 80}), verdict: PortOnHost,
			message: `container "app" publishes the application's port 8080 on the node (hostPort 80), where requests would pass by the sidecar: remove hostPort, or use tokenward.io/capture=Redirect`,
		},
		"the application on the sidecar's port": {
			change: appPorts(port{ContainerPort: 18080}), verdict: PortTaken,
			message: `container "app" declares port 18080, which is the sidecar's (18080 for requests, 18081 for health and metrics): let the container listen on another port`,
		},
		"an init container on the admin port": {
			change: addInit("setup", false, port{ContainerPort: 18081}), verdict: PortTaken,
			message: `container "setup" declares port 18081, which is the sidecar's (18080 for requests, 18081 for health and metrics): let the container listen on another port`,
		},
		"another container with the application's port name": {
			annotations: annotations{api.PortAnnotation: "8080"}, change: addContainer("other", named("http", 8081)), verdict: PortNameTaken,
			message: `container "other" calls its port 8081 "http", the name that the sidecar's port gets: rename that port`,
		},
		"a name that two containers declare": {
			annotations: annotations{api.PortAnnotation: "http"}, change: addContainer("other", named("http", 8081)), verdict: PortAmbiguous,
			message: `annotation tokenward.io/port="http": 8080 "http" (container "app") or 8081 "http" (container "other") are both meant: declare the port once`,
		},
		"a native sidecar with the application's port name": {
			change: addInit("proxy", true, named("http", 8081)), verdict: PortNameTaken,
			message: `container "proxy" calls its port 8081 "http", the name that the sidecar's port gets: rename that port`,
		},
		"a port named like the admin port": {
			annotations: annotations{api.PortAnnotation: "8080"}, change: addContainer("other", named("tokenward-admin", 8081)), verdict: PortNameTaken,
			message: `container "other" calls its port 8081 "tokenward-admin", the name that the sidecar's port gets: rename that port`,
		},
		"a quantity that is none": {
			annotations: annotations{api.SidecarCPURequestAnnotation: "lots"}, verdict: ResourcesInvalid,
			message: `annotation tokenward.io/sidecar-cpu-request="lots" is not a quantity: write for example 50m or 0.5`,
		},
		"a negative quantity": {
			annotations: annotations{api.SidecarCPULimitAnnotation: "-1"}, verdict: ResourcesInvalid,
			message: `annotation tokenward.io/sidecar-cpu-limit="-1" is less than 1m: write for example 50m or 0.5`,
		},
		"memory in thousandths of a byte": {
			annotations: annotations{api.SidecarMemoryLimitAnnotation: "128m"}, verdict: ResourcesInvalid,
			message: `annotation tokenward.io/sidecar-memory-limit="128m" is less than 16Mi: write for example 64Mi or 1Gi`,
		},
		"a request above the limit": {
			annotations: annotations{api.SidecarMemoryRequestAnnotation: "1Gi", api.SidecarMemoryLimitAnnotation: "64Mi"}, verdict: ResourcesInvalid,
			message: `annotation tokenward.io/sidecar-memory-request="1Gi" is more than tokenward.io/sidecar-memory-limit="64Mi": lower the request or raise the limit`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pod := annotatedPod(tt.annotations)
			if tt.change != nil {
				tt.change(pod)
			}
			policies := shop
			if tt.policies != nil {
				policies = *tt.policies
			}
			before := pod.DeepCopy()
			_, refusal := Decide(pod, policies, testOptions)
			if refusal == nil {
				t.Fatal("not refused")
			}
			if refusal.Verdict != tt.verdict || refusal.Message != tt.message {
				t.Errorf("got  %s: %s\nwant %s: %s", refusal.Verdict, refusal.Message, tt.verdict, tt.message)
			}
			requireSame(t, "deciding", before, pod)
		})
	}
}

func TestMessagesStayShort(t *testing.T) {
	long := strings.Repeat("x\n", 100_000)
	many := make([]corev1.ContainerPort, 5000)
	for i := range many {
		many[i] = corev1.ContainerPort{Name: long, ContainerPort: int32(i)}
	}
	for name, pod := range map[string]*corev1.Pod{
		"a long policy name":   annotatedPod(map[string]string{api.PolicyAnnotation: long}),
		"a long unknown key":   annotatedPod(map[string]string{"tokenward.io/" + long: long}),
		"a long port":          annotatedPod(map[string]string{api.PortAnnotation: long}),
		"thousands of ports":   annotatedPod(nil, appPorts(many...)),
		"a long port, many":    annotatedPod(map[string]string{api.PortAnnotation: "none"}, appPorts(many...)),
		"a long quantity":      annotatedPod(map[string]string{api.SidecarCPULimitAnnotation: long}),
		"a long status":        annotatedPod(map[string]string{api.StatusAnnotation: long}),
		"a long container":     annotatedPod(nil, addContainer(long, corev1.ContainerPort{ContainerPort: 18080}), func(p *corev1.Pod) { p.Annotations[api.PortAnnotation] = "http" }),
		"a long policy's list": annotatedPod(map[string]string{api.PolicyAnnotation: "none"}),
	} {
		t.Run(name, func(t *testing.T) {
			policies := shop
			if strings.Contains(name, "policy") {
				policies = Policies{Known: slices.Repeat([]string{long}, 1000)}
			}
			_, refusal := Decide(pod, policies, testOptions)
			if refusal == nil {
				t.Fatal("not refused")
			}
			if len(refusal.Message) > 2500 || strings.Contains(refusal.Message, "\n") {
				t.Errorf("%d bytes: %.300s", len(refusal.Message), refusal.Message)
			}
		})
	}
}

func TestResources(t *testing.T) {
	tests := map[string]struct {
		annotations              map[string]string
		cpu, cpuLimit, mem, memL string
	}{
		"defaults":                           {nil, "10m", "0", "32Mi", "128Mi"},
		"all set":                            {map[string]string{api.SidecarCPURequestAnnotation: "50m", api.SidecarCPULimitAnnotation: "1", api.SidecarMemoryRequestAnnotation: "64Mi", api.SidecarMemoryLimitAnnotation: "256Mi"}, "50m", "1", "64Mi", "256Mi"},
		"a low limit lowers the request":     {map[string]string{api.SidecarMemoryLimitAnnotation: "24Mi"}, "10m", "0", "24Mi", "24Mi"},
		"a high request raises the limit":    {map[string]string{api.SidecarMemoryRequestAnnotation: "256Mi"}, "10m", "0", "256Mi", "256Mi"},
		"a low CPU limit lowers the request": {map[string]string{api.SidecarCPULimitAnnotation: "5m"}, "5m", "5m", "32Mi", "128Mi"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pod := annotatedPod(tt.annotations)
			plan, refusal := Decide(pod, shop, testOptions)
			if refusal != nil {
				t.Fatal(refusal)
			}
			r := Apply(pod, plan).Spec.InitContainers[0].Resources
			got := [4]string{r.Requests.Cpu().String(), r.Limits.Cpu().String(), r.Requests.Memory().String(), r.Limits.Memory().String()}
			if want := [4]string{tt.cpu, tt.cpuLimit, tt.mem, tt.memL}; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
