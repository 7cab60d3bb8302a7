// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

// Verdict is what came of one pod: a closed set, which labels the metric and the log line.
type Verdict string

// The verdicts that admit the pod.
const (
	// Injected: the pod gets the sidecar.
	Injected Verdict = "Injected"
	// AlreadyInjected: the pod has the sidecar; only the label may be put back.
	AlreadyInjected Verdict = "AlreadyInjected"
	// NotRequested: the pod has no policy annotation and is left alone.
	NotRequested Verdict = "NotRequested"
)

// The verdicts that refuse the pod.
const (
	// AnnotationUnknown: an annotation or label under tokenward.io/ that means nothing on a pod.
	AnnotationUnknown Verdict = "AnnotationUnknown"
	// PolicyNotFound: the namespace has no TokenPolicy of that name.
	PolicyNotFound Verdict = "PolicyNotFound"
	// PolicyDeleting: the TokenPolicy is being deleted, and its settings with it.
	PolicyDeleting Verdict = "PolicyDeleting"
	// CaptureUnsupported: the capture annotation is not a capture of this release.
	CaptureUnsupported Verdict = "CaptureUnsupported"
	// CaptureForbidden: the namespace's Pod Security Standard forbids Redirect capture.
	CaptureForbidden Verdict = "CaptureForbidden"
	// PodUnsupported: a host network, Windows or static pod, or probes and hooks that
	// the capture cannot serve.
	PodUnsupported Verdict = "PodUnsupported"
	// StatusForeign: the pod claims to be injected and is not.
	StatusForeign Verdict = "StatusForeign"
	// StatusMismatch: the pod was injected for something other than its annotations say now.
	StatusMismatch Verdict = "StatusMismatch"
	// NameTaken: a container or volume has a name that the sidecar needs.
	NameTaken Verdict = "NameTaken"
	// PortInvalid: the port annotation is neither a port number nor a port name.
	PortInvalid Verdict = "PortInvalid"
	// PortNotDeclared: no container declares the port, or any port at all.
	PortNotDeclared Verdict = "PortNotDeclared"
	// PortAmbiguous: more than one declared port could be meant.
	PortAmbiguous Verdict = "PortAmbiguous"
	// PortProtocol: the port is declared, but not for TCP, or for UDP too.
	PortProtocol Verdict = "PortProtocol"
	// PortOnHost: the application's port is published on the node, past the sidecar.
	PortOnHost Verdict = "PortOnHost"
	// PortTaken: a container declares one of the sidecar's ports.
	PortTaken Verdict = "PortTaken"
	// PortNameTaken: another container declares the name that the sidecar's port gets, or
	// under Redirect capture the application's port has.
	PortNameTaken Verdict = "PortNameTaken"
	// ResourcesInvalid: a resource annotation is not a usable quantity.
	ResourcesInvalid Verdict = "ResourcesInvalid"
)

// Failed counts a pod that could be neither admitted nor refused for a reason of
// its own, because something did not work. It is tried again by whoever created it.
const Failed Verdict = "Failed"

// Verdicts are all of them.
func Verdicts() []Verdict {
	return []Verdict{
		Injected, AlreadyInjected, NotRequested,
		AnnotationUnknown, PolicyNotFound, PolicyDeleting, CaptureUnsupported, CaptureForbidden, PodUnsupported,
		StatusForeign, StatusMismatch, NameTaken, PortInvalid, PortNotDeclared, PortAmbiguous, PortProtocol,
		PortOnHost, PortTaken, PortNameTaken, ResourcesInvalid, Failed,
	}
}

// Refusal is why a pod is not admitted. Its message names the key, the value and
// the remedy, and is fit for a user's eyes.
type Refusal struct {
	Verdict Verdict
	Message string
}

// Error makes a refusal an error.
func (r *Refusal) Error() string { return r.Message }
