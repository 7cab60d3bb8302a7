// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/injection"
)

// injected is what the webhook noted on a pod, as far as it says what Services reach.
// Everything is read from metadata; the pod's spec has nothing to add, as the webhook
// refuses what would: a second name or a hostPort of the application's port.
type injected struct {
	template string
	capture  api.Capture
	// port is the application's; its name, now the sidecar's, is portName.
	port     int32
	portName string
}

// Names of the sidecar's ports, as controllers/injection gives them.
const (
	listenPortName = "tokenward" // where the application's port had no name
	adminPortName  = "tokenward-admin"
)

func (p injected) sidecarPortName() string { return cmp.Or(p.portName, listenPortName) }

// podFacts are what is known of a pod that runs: its name, the UID of what controls it or
// else its own, its labels, and what was injected into it.
type podFacts struct {
	name, workload string
	labels         map[string]string
	injected
}

// way is a port of a Service that leads past the sidecar.
type way struct {
	service string
	port    int32
	// toApplication: to the very port that the sidecar stands before; otherwise to
	// another one, of which is only known that it is not the sidecar's.
	toApplication bool
	// says where it leads and what to write instead.
	says string
}

// waysPast finds the Services' ports that lead to pods of one policy past their
// sidecars: those to the application first, then by name and port. It is a pure
// function, and looks at each Service's own pods only.
func waysPast(services []corev1.Service, pods []podFacts) []way {
	index := indexPods(pods)
	var found []way
	for i := range services {
		service := &services[i]
		// Kubernetes makes no endpoints for these. Endpoints that people write are not looked at.
		if service.Spec.Type == corev1.ServiceTypeExternalName || len(service.Spec.Selector) == 0 {
			continue
		}
		targets := index.targets(service.Spec.Selector)
		for _, port := range service.Spec.Ports {
			if w, past := wayOf(service, port, targets); past {
				found = append(found, w)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b way) int {
		if a.toApplication != b.toApplication {
			if a.toApplication {
				return -1
			}
			return 1
		}
		return cmp.Or(strings.Compare(a.service, b.service), cmp.Compare(a.port, b.port), strings.Compare(a.says, b.says))
	})
	return found
}

// podIndex finds pods by a label, so that a Service costs what it selects and not
// what the policy has.
type podIndex struct {
	pods    []podFacts
	byLabel map[[2]string][]int
}

func indexPods(pods []podFacts) podIndex {
	index := podIndex{pods: pods, byLabel: make(map[[2]string][]int)}
	for i, pod := range pods {
		if pod.capture == api.CaptureRedirect {
			continue
		}
		for key, value := range pod.labels {
			label := [2]string{key, value}
			index.byLabel[label] = append(index.byLabel[label], i)
		}
	}
	return index
}

// targets are the different kinds of pods that a selector selects, in a fixed order:
// one for thousands of replicas. Whether a pod is ready does not matter, it will be.
func (x podIndex) targets(selector map[string]string) []injected {
	var candidates []int
	first := true
	for key, value := range selector {
		if with := x.byLabel[[2]string{key, value}]; first || len(with) < len(candidates) {
			candidates, first = with, false
		}
	}
	kinds := make(map[injected]bool)
	for _, i := range candidates {
		kind := x.pods[i].injected
		kind.template = "" // makes no difference here
		if !kinds[kind] && selects(selector, x.pods[i].labels) {
			kinds[kind] = true
		}
	}
	return slices.SortedFunc(maps.Keys(kinds), func(a, b injected) int {
		return cmp.Or(cmp.Compare(a.port, b.port), strings.Compare(a.portName, b.portName), strings.Compare(string(a.capture), string(b.capture)))
	})
}

func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if has, ok := labels[key]; !ok || has != value {
			return false
		}
	}
	return true
}

// wayOf judges one port of a Service; of several kinds of pods the worst counts.
func wayOf(service *corev1.Service, port corev1.ServicePort, targets []injected) (way, bool) {
	var found way
	past := false
	for _, pod := range targets {
		says, toApplication := leads(service, port, pod)
		if says == "" || past && (found.toApplication || !toApplication) {
			continue
		}
		found = way{service: service.Name, port: port.Port, toApplication: toApplication, says: says}
		past = true
	}
	return found, past
}

// leads says where a port of a Service leads that selects the pod, and what to write
// instead; nothing when it leads to the sidecar.
func leads(service *corev1.Service, port corev1.ServicePort, pod injected) (says string, toApplication bool) {
	name := fmt.Sprintf("Service %q port %d", service.Name, port.Port)
	target := port.TargetPort
	if target == (intstr.IntOrString{}) {
		target = intstr.FromInt32(port.Port)
	}
	if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP {
		return fmt.Sprintf("%s leads to %s port %s of the pods, which the sidecar does not serve: remove it, or keep it if it is not the application", name, port.Protocol, target.String()), false
	}
	remedy := "write targetPort: " + pod.sidecarPortName()
	switch {
	case target.Type == intstr.Int && target.IntVal == pod.port:
		return fmt.Sprintf("%s leads to the application's port %d past the sidecar: %s", name, pod.port, remedy), true
	case service.Spec.ClusterIP == corev1.ClusterIPNone && port.Port == pod.port:
		// There is nothing between the caller and the pod that would turn port into targetPort.
		return fmt.Sprintf("%s is of a headless Service, which leaves the port to the caller, and this one is the application's, past the sidecar: write port: %d and %s, and call that port",
			name, injection.ListenPort, strings.TrimPrefix(remedy, "write ")), true
	case target.Type == intstr.Int && (target.IntVal == injection.ListenPort || target.IntVal == injection.AdminPort),
		target.Type == intstr.String && (target.StrVal == pod.sidecarPortName() || target.StrVal == adminPortName):
		return "", false
	default:
		return fmt.Sprintf("%s leads to port %s of the pods, which is not the sidecar's: %s, or keep it if it is not the application", name, target.String(), remedy), false
	}
}
