// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// target is the application's port: Containers[container].Ports[entry] of the pod.
type target struct {
	container, entry int
	number           int32
	name             string
	// keepsName says that the port's name stays with it: what goes there comes to the
	// sidecar anyhow, under Redirect capture.
	keepsName bool
}

// sidecarPortName is the name that leads Services to the sidecar.
func (t target) sidecarPortName() string {
	if t.name == "" || t.keepsName {
		return listenPortName
	}
	return t.name
}

// declared are the TCP ports of the application's containers.
func declared(pod *corev1.Pod) []target {
	var ports []target
	for i := range pod.Spec.Containers {
		for j, p := range pod.Spec.Containers[i].Ports {
			if isTCP(p) {
				ports = append(ports, target{container: i, entry: j, number: p.ContainerPort, name: p.Name})
			}
		}
	}
	return ports
}

func isTCP(p corev1.ContainerPort) bool { return p.Protocol == "" || p.Protocol == corev1.ProtocolTCP }

// choosePort finds the application's port: the annotation's, else the only one there is.
func (d *decision) choosePort() *Refusal {
	ports := declared(d.pod)
	var chosen []target
	value, set := d.pod.Annotations[api.PortAnnotation]
	if set {
		number, refusal := parsePort(value)
		if refusal != nil {
			return refusal
		}
		chosen = slices.DeleteFunc(slices.Clone(ports), func(t target) bool {
			return t.number != number && (number != 0 || t.name != value)
		})
	} else {
		chosen = ports
	}
	switch {
	case len(chosen) == 0:
		return d.noPort(value, set, ports)
	case len(chosen) > 1 && !set:
		return refuse(PortAmbiguous, "the pod declares %d TCP ports, %s: say with the annotation %s which one is the application's",
			len(chosen), d.describe(chosen), api.PortAnnotation)
	case len(chosen) > 1:
		return refuse(PortAmbiguous, "annotation %s=%s: %s are both meant: declare the port once",
			api.PortAnnotation, quote(value), d.describe(chosen))
	}
	// Another name of the same number would still lead past the sidecar.
	same := slices.DeleteFunc(ports, func(t target) bool { return t.number != chosen[0].number })
	if len(same) > 1 {
		return refuse(PortAmbiguous, "the application's port is declared more than once, as %s: declare it once", d.describe(same))
	}
	d.target = chosen[0]
	d.target.keepsName = d.capture() == api.CaptureRedirect
	if d.target.number < 1 || d.target.number > 65535 { // not validated yet
		return refuse(PortInvalid, "%s: a port number is 1 to 65535", d.describe(chosen))
	}
	return nil
}

// parsePort reads the annotation: a number, or 0 for a well-formed name.
func parsePort(value string) (int32, *Refusal) {
	number, err := strconv.ParseInt(value, 10, 32)
	switch {
	case err == nil && number >= 1 && number <= 65535 && strconv.FormatInt(number, 10) == value:
		return int32(number), nil
	case strings.Trim(value, "+-0123456789") == "":
		return 0, refuse(PortInvalid, "annotation %s=%s: a port number is 1 to 65535, without sign or leading zeros", api.PortAnnotation, quote(value))
	}
	if problems := validation.IsValidPortName(value); len(problems) > 0 {
		return 0, refuse(PortInvalid, "annotation %s=%s: this is neither a port number nor a port name, a name %s",
			api.PortAnnotation, quote(value), problems[0])
	}
	return 0, nil
}

// noPort says what is there instead of the port that is not.
func (d *decision) noPort(value string, set bool, ports []target) *Refusal {
	for i := range d.pod.Spec.Containers {
		for _, p := range d.pod.Spec.Containers[i].Ports {
			if !isTCP(p) && (!set || p.Name == value || strconv.Itoa(int(p.ContainerPort)) == value) {
				return refuse(PortProtocol, "container %s declares port %d for %s: only TCP ports can be protected, declare the one that speaks HTTP",
					quote(d.pod.Spec.Containers[i].Name), p.ContainerPort, quote(string(p.Protocol)))
			}
		}
	}
	if len(ports) == 0 && !set {
		return refuse(PortNotDeclared, "no container of the pod declares a port: declare the application's under spec.containers[].ports")
	}
	if len(ports) == 0 {
		return refuse(PortNotDeclared, "annotation %s=%s: no container of the pod declares a TCP port: declare this one under spec.containers[].ports",
			api.PortAnnotation, quote(value))
	}
	candidates := make([]string, 0, 2*len(ports))
	for _, t := range ports {
		if t.name != "" {
			candidates = append(candidates, t.name)
		}
		candidates = append(candidates, strconv.Itoa(int(t.number)))
	}
	if near, ok := nearest(value, candidates); ok {
		return refuse(PortNotDeclared, "annotation %s=%s: no container declares this TCP port: did you mean %s?",
			api.PortAnnotation, quote(value), quote(near))
	}
	return refuse(PortNotDeclared, "annotation %s=%s: no container declares this TCP port: declare it, or name %s",
		api.PortAnnotation, quote(value), d.describe(ports))
}

// describe lists ports with their names and containers.
func (d *decision) describe(ports []target) string {
	words := make([]string, 0, len(ports))
	for _, t := range ports {
		word := strconv.Itoa(int(t.number))
		if t.name != "" {
			word += " " + quote(t.name)
		}
		words = append(words, fmt.Sprintf("%s (container %s)", word, quote(d.pod.Spec.Containers[t.container].Name)))
	}
	return list(words)
}
