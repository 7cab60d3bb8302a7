// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tokenward/tokenward/internal/probe"
)

// maxProbes bounds the probes of a pod that the sidecar runs.
const maxProbes = 64

// relayed is a probe of the application's port, where the kubelet would meet the
// sidecar: it is sent to the admin port instead, and the sidecar runs what was declared.
type relayed struct {
	// init and container say whose it is; kind is "liveness", "readiness" or "startup".
	init      bool
	container int
	kind      string
	// action is what the kubelet was to do: httpGet, tcpSocket or grpc.
	action   string
	name     string
	declared probe.Probe
}

// probeOf is the place of a kind of probe in a container.
func probeOf(c *corev1.Container, kind string) *corev1.Probe {
	switch kind {
	case "liveness":
		return c.LivenessProbe
	case "readiness":
		return c.ReadinessProbe
	default:
		return c.StartupProbe
	}
}

func probeKinds() []string { return []string{"liveness", "readiness", "startup"} }

// checkProbes finds the probes to relay, and refuses what would stop working without a word.
func (d *decision) checkProbes() *Refusal {
	for _, list := range d.containers() {
		for i := range list.containers {
			c := &list.containers[i]
			for _, kind := range probeKinds() {
				if relaysTo(probeOf(c, kind)) != "" {
					return refuse(PortTaken, "the %s probe of container %s goes to the sidecar's port %d, as in a running pod that this one was copied from: write the probe as the application declares it",
						kind, quote(c.Name), AdminPort)
				}
			}
			if !d.target.keepsName {
				continue
			}
			if refusal := d.checkHooks(c); refusal != nil {
				return refusal
			}
			if refusal := d.checkUDP(c); refusal != nil {
				return refusal
			}
			d.relayed = append(d.relayed, relayedOf(c, i, list.init, d.target.number)...)
		}
	}
	if len(d.relayed) == 0 {
		return nil
	}
	if len(d.relayed) > maxProbes {
		return refuse(PodUnsupported, "the pod has %d probes of the application's port %d, and the sidecar runs %d at most under capture Redirect: declare fewer",
			len(d.relayed), d.target.number, maxProbes)
	}
	probes := make(map[string]probe.Probe, len(d.relayed))
	for _, r := range d.relayed {
		probes[r.name] = r.declared
	}
	value, err := probe.Encode(probes)
	if err != nil {
		return refuse(PodUnsupported, "the probes of the application's port %d are too long for capture Redirect, %v: shorten their paths and headers", d.target.number, err)
	}
	d.probes = value
	return nil
}

// containerList is one of the two lists of containers that have probes.
type containerList struct {
	init       bool
	containers []corev1.Container
}

func (d *decision) containers() []containerList {
	return []containerList{{true, d.pod.Spec.InitContainers}, {false, d.pod.Spec.Containers}}
}

// checkHooks refuses hooks over HTTP. The sidecar could run them too, but whoever
// reaches the admin port could then stop the application with its own preStop hook.
func (d *decision) checkHooks(c *corev1.Container) *Refusal {
	if c.Lifecycle == nil {
		return nil
	}
	for _, of := range []struct {
		name string
		hook *corev1.LifecycleHandler
	}{{"postStart", c.Lifecycle.PostStart}, {"preStop", c.Lifecycle.PreStop}} {
		if of.hook != nil && of.hook.HTTPGet != nil && of.hook.HTTPGet.Host == "" && portOf(c, of.hook.HTTPGet.Port) == d.target.number {
			return refuse(PodUnsupported, "the %s hook of container %s is a request to the application's port %d, where the kubelet meets the sidecar under capture Redirect: use exec or sleep for the hook, or another port",
				of.name, quote(c.Name), d.target.number)
		}
	}
	return nil
}

// portOf resolves a port as the kubelet does: a name is one of the same container.
func portOf(c *corev1.Container, port intstr.IntOrString) int32 {
	if port.Type == intstr.Int {
		return port.IntVal
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return p.ContainerPort
		}
	}
	number, err := strconv.ParseInt(port.StrVal, 10, 32)
	if err != nil {
		return 0
	}
	return int32(number)
}

// relayedOf are the probes of a container that go to a port of the pod.
func relayedOf(c *corev1.Container, index int, init bool, port int32) []relayed {
	var found []relayed
	for _, kind := range probeKinds() {
		p := probeOf(c, kind)
		if p == nil || actions(p) != 1 { // more are not valid, and refused later on
			continue
		}
		r := relayed{
			init: init, container: index, kind: kind, name: probe.Name(c.Name, kind),
			declared: probe.Probe{TimeoutSeconds: max(p.TimeoutSeconds, 1)},
		}
		switch {
		// A probe of a named host goes there, and not to the pod.
		case p.HTTPGet != nil && p.HTTPGet.Host == "" && portOf(c, p.HTTPGet.Port) == port:
			r.action, r.declared.HTTP = "httpGet", declaredHTTP(p.HTTPGet)
		case p.TCPSocket != nil && p.TCPSocket.Host == "" && portOf(c, p.TCPSocket.Port) == port:
			r.action, r.declared.TCP = "tcpSocket", &probe.TCP{}
		case p.GRPC != nil && p.GRPC.Port == port:
			r.action, r.declared.GRPC = "grpc", &probe.GRPC{TLS: p.GRPC.Mode != nil && *p.GRPC.Mode == corev1.GRPCProbeModeTLS}
			if p.GRPC.Service != nil {
				r.declared.GRPC.Service = *p.GRPC.Service
			}
		default:
			continue
		}
		found = append(found, r)
	}
	return found
}

// actions counts what a probe is to do.
func actions(p *corev1.Probe) int {
	count := 0
	for _, is := range []bool{p.Exec != nil, p.HTTPGet != nil, p.TCPSocket != nil, p.GRPC != nil} {
		if is {
			count++
		}
	}
	return count
}

func declaredHTTP(get *corev1.HTTPGetAction) *probe.HTTP {
	tls := strings.EqualFold(string(get.Scheme), string(corev1.URISchemeHTTPS))
	declared := &probe.HTTP{
		TLS: tls, Path: get.Path,
		H2C: !tls && get.Protocol != nil && *get.Protocol == corev1.HTTPProtocolHTTP2,
	}
	for _, h := range get.HTTPHeaders {
		declared.Headers = append(declared.Headers, probe.Header{Name: h.Name, Value: h.Value})
	}
	return declared
}

// path leads to the probe, as a JSON pointer (RFC 6901).
func (r relayed) path() string {
	list := "containers"
	if r.init {
		list = "initContainers"
	}
	return fmt.Sprintf("/spec/%s/%d/%sProbe", list, r.container, r.kind)
}

// relay is what the kubelet asks instead.
func (r relayed) relay() *corev1.HTTPGetAction {
	return &corev1.HTTPGetAction{Path: probe.PathPrefix + r.name, Port: intstr.FromInt32(AdminPort), Scheme: corev1.URISchemeHTTP}
}

// apply changes the probe in a pod that has not got our containers yet.
func (r relayed) apply(pod *corev1.Pod) {
	list := pod.Spec.Containers
	if r.init {
		list = pod.Spec.InitContainers
	}
	p := probeOf(&list[r.container], r.kind)
	switch r.action {
	case "tcpSocket":
		p.TCPSocket = nil
	case "grpc":
		p.GRPC = nil
	}
	p.HTTPGet = r.relay()
}

// operations is apply as steps of a JSON patch.
func (r relayed) operations() []operation {
	var steps []operation
	if r.action != "httpGet" {
		steps = append(steps, operation{Op: "remove", Path: r.path() + "/" + r.action})
	}
	return append(steps, operation{"add", r.path() + "/httpGet", r.relay()})
}

// relaysTo is the name of the probe that the sidecar is asked for; "" if it is not.
func relaysTo(p *corev1.Probe) string {
	if p == nil || p.HTTPGet == nil || p.HTTPGet.Port != intstr.FromInt32(AdminPort) {
		return ""
	}
	name, ok := strings.CutPrefix(p.HTTPGet.Path, probe.PathPrefix)
	if !ok {
		return ""
	}
	return cmp.Or(name, "/") // a name never ends in a slash
}

// strays says which probe of an injected pod would not do what it says, in words that
// follow "but": one that somebody has added since, or that the sidecar does not know.
func (d *decision) strays(sidecar *corev1.Container, port int32) string {
	known := map[string]probe.Probe{}
	for _, arg := range sidecar.Args {
		if value, ok := strings.CutPrefix(arg, probesArgument); ok {
			probes, err := probe.Parse(value)
			if err != nil {
				return err.Error()
			}
			known = probes
		}
	}
	for _, list := range d.containers() {
		for i := range list.containers {
			c := &list.containers[i]
			if c.Name == ContainerName {
				continue
			}
			if late := relayedOf(c, i, list.init, port); len(late) > 0 {
				return fmt.Sprintf("the %s probe of container %s goes to the application's port %d, where it meets the sidecar", late[0].kind, quote(c.Name), port)
			}
			for _, kind := range probeKinds() {
				name := relaysTo(probeOf(c, kind))
				if _, ok := known[name]; name != "" && !ok {
					return fmt.Sprintf("the sidecar does not know the %s probe of container %s", kind, quote(c.Name))
				}
			}
		}
	}
	return ""
}
