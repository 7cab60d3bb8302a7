// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// AnnotationPrefix starts every annotation and label that Tokenward reads or
// writes. A pod annotation with this prefix that is not listed here is refused.
const AnnotationPrefix = "tokenward.io/"

// Annotations that a workload author writes on the pod template.
const (
	// PolicyAnnotation names the TokenPolicy of the pod's namespace and asks for injection.
	PolicyAnnotation = AnnotationPrefix + "policy"
	// PortAnnotation names the application's port, by number or by container port name.
	// Needed only when the pod declares more than one container port.
	PortAnnotation = AnnotationPrefix + "port"
	// CaptureAnnotation chooses how requests come to the sidecar; see [Capture].
	CaptureAnnotation = AnnotationPrefix + "capture"
	// SidecarCPURequestAnnotation is the sidecar's CPU request, a quantity such as "10m".
	SidecarCPURequestAnnotation = AnnotationPrefix + "sidecar-cpu-request"
	// SidecarCPULimitAnnotation is the sidecar's CPU limit, a quantity; none by default.
	SidecarCPULimitAnnotation = AnnotationPrefix + "sidecar-cpu-limit"
	// SidecarMemoryRequestAnnotation is the sidecar's memory request, a quantity such as "32Mi".
	SidecarMemoryRequestAnnotation = AnnotationPrefix + "sidecar-memory-request"
	// SidecarMemoryLimitAnnotation is the sidecar's memory limit, a quantity such as "128Mi".
	SidecarMemoryLimitAnnotation = AnnotationPrefix + "sidecar-memory-limit"
)

// Annotations that Tokenward writes, or that an administrator writes on our kinds.
const (
	// StatusAnnotation on a pod records what was injected. Written by the webhook alone.
	StatusAnnotation = AnnotationPrefix + "status"
	// RotateAnnotation on a SigningKey asks for one rotation each time its value changes.
	RotateAnnotation = AnnotationPrefix + "rotate"
	// RevokeSubjectAnnotation on a TokenPolicy ends the sessions that its value, a
	// subject, has at that time: once each time the value changes.
	RevokeSubjectAnnotation = AnnotationPrefix + "revoke-subject"
	// RevokeAllAnnotation on a TokenPolicy ends every session that began until its
	// value, a moment of RFC 3339 that is not in the future.
	RevokeAllAnnotation = AnnotationPrefix + "revoke-all"
)

// Labels.
const (
	// InjectedLabel is "true" on every pod that carries the sidecar.
	InjectedLabel = AnnotationPrefix + "injected"
	// InjectedPolicyLabel on a pod that carries the sidecar names its policy, for
	// selectors: annotations cannot be selected by. Written by the webhook alone; pods
	// that were injected by a release before this label lack it until they are replaced.
	InjectedPolicyLabel = AnnotationPrefix + "injected-policy"
	// InjectedCaptureLabel on a pod that carries the sidecar is its [Capture]. Under
	// Redirect a NetworkPolicy sees the application's port before the pod does, so one
	// that admits the sidecar's port alone must not select such pods.
	InjectedCaptureLabel = AnnotationPrefix + "injected-capture"
	// ComponentLabel says which part of Tokenward an object belongs to, for example "sessions".
	// Caches are limited by it.
	ComponentLabel = AnnotationPrefix + "component"
)

// Finalizer keeps a SigningKey or TokenPolicy until what it owns in the
// operator's namespace is gone.
const Finalizer = AnnotationPrefix + "finalizer"

// Capture is how requests are made to pass through the sidecar.
type Capture string

// See design section 6.
const (
	// CapturePort gives the application's named port to the sidecar. It needs no privilege.
	CapturePort Capture = "Port"
	// CaptureRedirect leads whatever reaches the application's port from outside the pod
	// to the sidecar, by rules that an init container with NET_ADMIN sets.
	CaptureRedirect Capture = "Redirect"
)
