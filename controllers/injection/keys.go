// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"maps"
	"slices"
	"strings"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// authorKeys are the annotations that a pod's author may set, the likeliest first.
func authorKeys() []string {
	return []string{
		api.PolicyAnnotation, api.PortAnnotation, api.CaptureAnnotation,
		api.SidecarCPURequestAnnotation, api.SidecarCPULimitAnnotation,
		api.SidecarMemoryRequestAnnotation, api.SidecarMemoryLimitAnnotation,
	}
}

// checkKeys refuses what looks like an instruction to us and is none: silence would
// leave a workload less protected, or more expensive, than its author believes.
func (d *decision) checkKeys() *Refusal {
	known := authorKeys()
	suffixes := make([]string, len(known)) // the prefix is no likeness
	for i, key := range known {
		suffixes[i] = strings.TrimPrefix(key, api.AnnotationPrefix)
	}
	for _, key := range slices.Sorted(maps.Keys(d.pod.Annotations)) {
		if !strings.HasPrefix(key, api.AnnotationPrefix) || key == api.StatusAnnotation || slices.Contains(known, key) {
			continue
		}
		if near, ok := nearest(strings.TrimPrefix(key, api.AnnotationPrefix), suffixes); ok {
			return refuse(AnnotationUnknown, "annotation %s=%s is not known: did you mean %s?",
				quote(key), quote(d.pod.Annotations[key]), api.AnnotationPrefix+near)
		}
		return refuse(AnnotationUnknown, "annotation %s=%s is not known: remove it, or use %s",
			quote(key), quote(d.pod.Annotations[key]), list(known))
	}
	for _, key := range slices.Sorted(maps.Keys(d.pod.Labels)) {
		if !strings.HasPrefix(key, api.AnnotationPrefix) || key == api.InjectedLabel || key == api.InjectedPolicyLabel || key == api.InjectedCaptureLabel {
			continue
		}
		if slices.Contains(known, key) {
			return refuse(AnnotationUnknown, "label %s=%s has no effect: make it an annotation of the pod",
				quote(key), quote(d.pod.Labels[key]))
		}
		return refuse(AnnotationUnknown, "label %s=%s is not known: remove it", quote(key), quote(d.pod.Labels[key]))
	}
	return nil
}

// checkPolicy needs the TokenPolicy to exist: its settings are a volume of the pod.
func (d *decision) checkPolicy() *Refusal {
	name := d.pod.Annotations[api.PolicyAnnotation]
	if d.policies.Found != nil && name != "" {
		if d.policies.Found.Deleting {
			return refuse(PolicyDeleting, "annotation %s=%s: TokenPolicy %s is being deleted: name another one, or create the pod again once it is back",
				api.PolicyAnnotation, quote(name), quote(name))
		}
		return nil
	}
	const none = "annotation %s=%s: there is no TokenPolicy of that name in the pod's namespace: "
	if near, ok := nearest(name, d.policies.Known); ok {
		return refuse(PolicyNotFound, none+"did you mean %s?", api.PolicyAnnotation, quote(name), quote(near))
	}
	if len(d.policies.Known) == 0 {
		return refuse(PolicyNotFound, none+"create it first, the namespace has none", api.PolicyAnnotation, quote(name))
	}
	quoted := make([]string, 0, len(d.policies.Known))
	for _, known := range slices.Sorted(slices.Values(d.policies.Known)) {
		quoted = append(quoted, quote(known))
	}
	return refuse(PolicyNotFound, none+"create it, or name %s", api.PolicyAnnotation, quote(name), list(quoted))
}

// checkCapture accepts the captures of this release.
func (d *decision) checkCapture() *Refusal {
	if capture := d.capture(); capture != api.CapturePort && capture != api.CaptureRedirect {
		return refuse(CaptureUnsupported, "annotation %s=%s: there are %s and %s: write one of them, or remove the annotation",
			api.CaptureAnnotation, quote(string(capture)), quote(string(api.CapturePort)), quote(string(api.CaptureRedirect)))
	}
	return nil
}

// capture is what the pod asks for.
func (d *decision) capture() api.Capture {
	if value, set := d.pod.Annotations[api.CaptureAnnotation]; set {
		return api.Capture(value)
	}
	return api.CapturePort
}
