// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

const injectedValue = "true"

// Apply returns the pod as the plan makes it. The pod given is not changed.
// [Plan.Patch] is the same for a pod's JSON.
func Apply(pod *corev1.Pod, p Plan) *corev1.Pod {
	out := pod.DeepCopy()
	if p.Verdict == NotRequested {
		return out
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	maps.Copy(out.Labels, p.labels())
	if p.Verdict == AlreadyInjected {
		return out
	}
	out.Annotations[api.StatusAnnotation] = p.Status.String()
	for _, r := range p.relayed {
		r.apply(out)
	}
	// First, so that the application's own init containers have the sidecar too.
	for i := range p.containers {
		out.Spec.InitContainers = slices.Insert(out.Spec.InitContainers, i, *p.containers[i].DeepCopy())
	}
	out.Spec.Volumes = append(out.Spec.Volumes, p.volumes...)
	if t := p.takeover; t != nil {
		app := &out.Spec.Containers[t.container]
		app.Ports[t.entry].Name = ""
		for _, h := range p.rewrites {
			*h.port(app) = intstr.FromInt32(t.number)
		}
	}
	return out
}

// labels are those of an injected pod, for caches and for the NetworkPolicy of its policy.
func (p Plan) labels() map[string]string {
	return map[string]string{
		api.InjectedLabel: injectedValue, api.InjectedPolicyLabel: p.Status.Policy, api.InjectedCaptureLabel: string(p.Status.Capture),
	}
}

// operation is one step of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Patch is the plan as a JSON patch (RFC 6902) of the pod's JSON, nil if there is
// nothing to do. It is written step by step instead of being worked out from two
// documents: so it touches nothing but what the plan means to change, also in a
// pod with fields that this build's types do not have.
func (p Plan) Patch(pod *corev1.Pod) ([]byte, error) {
	steps := p.operations(pod)
	if len(steps) == 0 {
		return nil, nil
	}
	document, err := json.Marshal(steps)
	if err != nil {
		return nil, fmt.Errorf("marshal the patch of a pod: %w", err)
	}
	return document, nil
}

func (p Plan) operations(pod *corev1.Pod) []operation {
	if p.Verdict == NotRequested {
		return nil
	}
	steps := p.labelOperations(pod)
	if p.Verdict == AlreadyInjected {
		return steps
	}
	steps = append(steps, operation{"add", "/metadata/annotations/" + escape(api.StatusAnnotation), p.Status.String()})
	// Before our containers come in, which moves the others.
	for _, r := range p.relayed {
		steps = append(steps, r.operations()...)
	}
	if len(pod.Spec.InitContainers) == 0 {
		steps = append(steps, operation{"add", "/spec/initContainers", p.containers})
	} else {
		for i, c := range p.containers {
			steps = append(steps, operation{"add", fmt.Sprintf("/spec/initContainers/%d", i), c})
		}
	}
	if len(pod.Spec.Volumes) == 0 {
		steps = append(steps, operation{"add", "/spec/volumes", p.volumes})
	} else {
		for _, v := range p.volumes {
			steps = append(steps, operation{"add", "/spec/volumes/-", v})
		}
	}
	if t := p.takeover; t != nil {
		container := fmt.Sprintf("/spec/containers/%d", t.container)
		steps = append(steps, operation{Op: "remove", Path: fmt.Sprintf("%s/ports/%d/name", container, t.entry)})
		for _, h := range p.rewrites {
			steps = append(steps, operation{"replace", container + h.path, t.number})
		}
	}
	return steps
}

func (p Plan) labelOperations(pod *corev1.Pod) []operation {
	labels := p.labels()
	if len(pod.Labels) == 0 {
		// "add" also replaces an empty map or null, which we cannot tell from absence.
		return []operation{{"add", "/metadata/labels", labels}}
	}
	var steps []operation
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if pod.Labels[key] != labels[key] {
			steps = append(steps, operation{"add", "/metadata/labels/" + escape(key), labels[key]})
		}
	}
	return steps
}

// escape is for a key in a JSON pointer (RFC 6901 section 3).
func escape(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
