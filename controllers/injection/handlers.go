// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// handler is a probe or hook that may reach its container by the name of a port.
type handler struct {
	// path leads from the container to the port, as a JSON pointer (RFC 6901).
	path string
	// port is that place in a container; nil if the container has no such handler.
	port func(*corev1.Container) *intstr.IntOrString
}

// handlers are all places of a container where a port can be named. A gRPC probe
// has a number only.
func handlers() []handler {
	all := make([]handler, 0, 10)
	for _, p := range []struct {
		path  string
		probe func(*corev1.Container) *corev1.Probe
	}{
		{"/livenessProbe", func(c *corev1.Container) *corev1.Probe { return c.LivenessProbe }},
		{"/readinessProbe", func(c *corev1.Container) *corev1.Probe { return c.ReadinessProbe }},
		{"/startupProbe", func(c *corev1.Container) *corev1.Probe { return c.StartupProbe }},
	} {
		all = append(all, pair(p.path, func(c *corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
			if probe := p.probe(c); probe != nil {
				return probe.HTTPGet, probe.TCPSocket
			}
			return nil, nil
		})...)
	}
	for _, h := range []struct {
		path string
		hook func(*corev1.Lifecycle) *corev1.LifecycleHandler
	}{
		{"/lifecycle/postStart", func(l *corev1.Lifecycle) *corev1.LifecycleHandler { return l.PostStart }},
		{"/lifecycle/preStop", func(l *corev1.Lifecycle) *corev1.LifecycleHandler { return l.PreStop }},
	} {
		all = append(all, pair(h.path, func(c *corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
			if c.Lifecycle == nil {
				return nil, nil
			}
			if hook := h.hook(c.Lifecycle); hook != nil {
				return hook.HTTPGet, hook.TCPSocket
			}
			return nil, nil
		})...)
	}
	return all
}

// pair makes the two handlers with a port that a probe or hook can have.
func pair(path string, actions func(*corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction)) []handler {
	return []handler{
		{path + "/httpGet/port", func(c *corev1.Container) *intstr.IntOrString {
			if get, _ := actions(c); get != nil {
				return &get.Port
			}
			return nil
		}},
		{path + "/tcpSocket/port", func(c *corev1.Container) *intstr.IntOrString {
			if _, socket := actions(c); socket != nil {
				return &socket.Port
			}
			return nil
		}},
	}
}

// handlersOf are the handlers of a container that use the name of a port. The
// kubelet looks the name up among the ports of the same container, so no other
// container's handlers are affected when a port loses its name.
func handlersOf(c *corev1.Container, name string) []handler {
	var found []handler
	for _, h := range handlers() {
		if port := h.port(c); port != nil && port.Type == intstr.String && port.StrVal == name {
			found = append(found, h)
		}
	}
	return found
}
