// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// checkNames refuses a pod whose author uses the sidecar's names. It runs before
// the sidecar is in the pod, so whatever has the name is not ours.
func (d *decision) checkNames() *Refusal {
	for _, c := range slices.Concat(d.pod.Spec.Containers, d.pod.Spec.InitContainers) {
		if c.Name == ContainerName || c.Name == RedirectContainerName {
			return refuse(NameTaken, "container %s has the name of one of the sidecar's containers: rename it, or remove it if it was copied from a running pod",
				quote(c.Name))
		}
	}
	for _, v := range d.pod.Spec.Volumes {
		if v.Name == settingsVolume || v.Name == identityVolume {
			return refuse(NameTaken, "volume %s has the name of one of the sidecar's volumes: rename it, or remove it if it was copied from a running pod",
				quote(v.Name))
		}
	}
	return nil
}

// checkPorts refuses ports that the sidecar would fight over, and ways around it.
// The sidecar itself, when it is in the pod already, is left out.
func (d *decision) checkPorts() *Refusal {
	for i := range d.pod.Spec.InitContainers {
		c := &d.pod.Spec.InitContainers[i]
		if c.Name == ContainerName {
			continue
		}
		if refusal := d.checkContainerPorts(c, -1, isNative(c)); refusal != nil {
			return refusal
		}
	}
	for i := range d.pod.Spec.Containers {
		if refusal := d.checkContainerPorts(&d.pod.Spec.Containers[i], i, true); refusal != nil {
			return refusal
		}
	}
	return nil
}

// checkContainerPorts looks at one container. Services find named ports in it only
// if it is served: an ordinary container or a native sidecar.
func (d *decision) checkContainerPorts(c *corev1.Container, index int, served bool) *Refusal {
	name := d.target.sidecarPortName()
	for j, p := range c.Ports {
		if !isTCP(p) {
			continue
		}
		if p.ContainerPort == ListenPort || p.ContainerPort == AdminPort {
			return refuse(PortTaken, "container %s declares port %d, which is the sidecar's (%d for requests, %d for health and metrics): let the container listen on another port",
				quote(c.Name), p.ContainerPort, ListenPort, AdminPort)
		}
		if p.ContainerPort == d.target.number && p.HostPort != 0 && !d.target.keepsName {
			return refuse(PortOnHost, "container %s publishes the application's port %d on the node (hostPort %d), where requests would pass by the sidecar: remove hostPort, or use %s=%s",
				quote(c.Name), p.ContainerPort, p.HostPort, api.CaptureAnnotation, api.CaptureRedirect)
		}
		takenOver := index == d.target.container && j == d.target.entry && !d.target.keepsName
		// Endpoints look a named port up in the containers first and in native
		// sidecars after: a second bearer of the name would win over ours.
		if served && !takenOver && (p.Name == name || p.Name == adminPortName) {
			return refuse(PortNameTaken, "container %s calls its port %d %s, the name that the sidecar's port gets: rename that port",
				quote(c.Name), p.ContainerPort, quote(p.Name))
		}
		// Redirect capture leaves the name where it is, and the rules know numbers: a
		// Service that means the application could lead to the other port, unchecked.
		if served && d.target.keepsName && d.target.name != "" && p.Name == d.target.name && p.ContainerPort != d.target.number {
			return refuse(PortNameTaken, "container %s calls its port %d %s, as the application's port %d is called: rename that port",
				quote(c.Name), p.ContainerPort, quote(p.Name), d.target.number)
		}
	}
	return nil
}

func isNative(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
