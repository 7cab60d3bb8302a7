// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// Policy is what a decision needs to know of the TokenPolicy that a pod names.
type Policy struct {
	UID        types.UID
	Generation int64
	Deleting   bool
}

// Policies are what the pod's namespace has to offer.
type Policies struct {
	// Found is the policy that the pod names; nil if there is none.
	Found *Policy
	// Known are names to suggest when it was not found.
	Known []string
}

// Plan is what is to be done to a pod. It belongs to the pod it was made for.
type Plan struct {
	Verdict Verdict
	// Status is what the pod's annotation says, or will say.
	Status Status

	// containers go before all other init containers.
	containers []corev1.Container
	volumes    []corev1.Volume
	// takeover is the port entry that loses its name to the sidecar's port.
	takeover *target
	// rewrites are the probes and hooks that used that name.
	rewrites []handler
	// relayed are the probes that the sidecar runs.
	relayed []relayed
}

// decision is one pod on its way to a plan. Each check may refuse it, or fill in
// what later ones need.
type decision struct {
	pod      *corev1.Pod
	policies Policies
	options  Options

	target    target
	resources corev1.ResourceRequirements
	relayed   []relayed
	// probes is relayed as the sidecar reads it; "" for none.
	probes string
}

// Decide says what is to be done to a pod that is being created, or why it is
// refused. It changes nothing. The pod need not have been validated.
//
// The rules, in order; the first that does not hold refuses the pod:
//
//  1. every key under tokenward.io/ is one we know
//  2. the policy exists, the capture is supported, and the pod can have a sidecar
//  3. a pod with a status annotation has our sidecar, made for the same policy and
//     port; it keeps what it has, also what others have added since
//  4. nothing has the sidecar's names
//  5. exactly one declared TCP port is the application's
//  6. nothing has the sidecar's ports or port names, and no way leads around it
//  7. no probe or hook would meet the sidecar in the application's place
//  8. the resource annotations are quantities that fit together
func Decide(pod *corev1.Pod, policies Policies, o Options) (Plan, *Refusal) {
	if _, asked := pod.Annotations[api.PolicyAnnotation]; !asked {
		return Plan{Verdict: NotRequested}, nil
	}
	d := &decision{pod: pod, policies: policies, options: o}
	if refusal := d.run(d.checkKeys, d.checkPolicy, d.checkCapture, d.checkPod); refusal != nil {
		return Plan{}, refusal
	}
	if value, done := pod.Annotations[api.StatusAnnotation]; done {
		return d.injected(value)
	}
	if refusal := d.run(d.checkNames, d.choosePort, d.checkPorts, d.checkProbes, d.chooseResources); refusal != nil {
		return Plan{}, refusal
	}
	return d.plan(), nil
}

func (d *decision) run(checks ...func() *Refusal) *Refusal {
	for _, check := range checks {
		if refusal := check(); refusal != nil {
			return refusal
		}
	}
	return nil
}

// checkPod refuses pods in which the sidecar could not do its work.
func (d *decision) checkPod() *Refusal {
	_, mirror := d.pod.Annotations[corev1.MirrorPodAnnotationKey]
	switch {
	case d.pod.Spec.HostNetwork:
		return refuse(PodUnsupported, "spec.hostNetwork=true: the sidecar would listen on the node's own address and the application's port stay open there: remove hostNetwork or the annotation %s",
			api.PolicyAnnotation)
	case d.pod.Spec.OS != nil && d.pod.Spec.OS.Name == corev1.Windows:
		return refuse(PodUnsupported, "spec.os.name=windows: the sidecar runs on Linux only: remove the annotation %s", api.PolicyAnnotation)
	case mirror:
		return refuse(PodUnsupported, "a static pod is run from a file on its node and cannot be given a sidecar: remove the annotation %s from the file, or create the pod through the API",
			api.PolicyAnnotation)
	}
	return nil
}

// plan puts together what the checks have found.
func (d *decision) plan() Plan {
	app := &d.pod.Spec.Containers[d.target.container]
	p := Plan{
		Verdict: Injected,
		Status: Status{
			Policy:     d.pod.Annotations[api.PolicyAnnotation],
			PolicyUID:  d.policies.Found.UID,
			Generation: d.policies.Found.Generation,
			Capture:    d.capture(),
			Port:       d.target.number,
			PortName:   d.target.name,
			Container:  app.Name,
			Image:      d.options.SidecarImage,
			Template:   Template(d.options),
		},
		containers: []corev1.Container{sidecar(d.options, d.target, d.resources, d.probes)},
		relayed:    d.relayed,
	}
	p.volumes = volumes(p.Status.Policy)
	switch {
	case d.target.keepsName:
		p.containers = slices.Insert(p.containers, 0, redirect(d.options, d.target, d.resources))
	case d.target.name != "":
		p.takeover = &d.target
		p.rewrites = handlersOf(app, d.target.name)
	}
	return p
}

// injected decides about a pod that says it has the sidecar: the webhook is asked
// again when another one has changed the pod, and people copy running pods. What
// others have changed in our container stays; what it cannot work without must be there.
func (d *decision) injected(value string) (Plan, *Refusal) {
	const remedy = "remove that annotation, the init containers " + ContainerName + " and " + RedirectContainerName + ", and the volumes " +
		settingsVolume + " and " + identityVolume + ", write the probes as the application declares them, and the pod is injected anew"
	status, err := ParseStatus(value)
	if err != nil {
		return Plan{}, refuse(StatusForeign, "annotation %s=%s was not written by Tokenward: %s", api.StatusAnnotation, quote(value), remedy)
	}
	if policy := d.pod.Annotations[api.PolicyAnnotation]; status.Policy != policy {
		return Plan{}, refuse(StatusMismatch, "annotation %s says that the pod was injected for policy %s, but %s=%s: %s",
			api.StatusAnnotation, quote(status.Policy), api.PolicyAnnotation, quote(policy), remedy)
	}
	if port, set := d.pod.Annotations[api.PortAnnotation]; set && port != fmt.Sprint(status.Port) && port != status.PortName {
		return Plan{}, refuse(StatusMismatch, "annotation %s says that the pod was injected for port %d, but %s=%s: %s",
			api.StatusAnnotation, status.Port, api.PortAnnotation, quote(port), remedy)
	}
	if capture := d.capture(); status.Capture != capture {
		return Plan{}, refuse(StatusMismatch, "annotation %s says that the pod was injected for capture %s, but %s=%s: %s",
			api.StatusAnnotation, quote(string(status.Capture)), api.CaptureAnnotation, quote(string(capture)), remedy)
	}
	if missing := d.missing(status); missing != "" {
		return Plan{}, refuse(StatusForeign, "annotation %s says that the pod has the sidecar, but %s: %s", api.StatusAnnotation, missing, remedy)
	}
	// No entry is taken over now: whoever has the name besides the sidecar is in the way.
	d.target = target{container: -1, entry: -1, number: status.Port, name: status.PortName, keepsName: status.Capture == api.CaptureRedirect}
	if refusal := d.checkPorts(); refusal != nil {
		return Plan{}, refusal
	}
	return Plan{Verdict: AlreadyInjected, Status: status}, nil
}

// missing says what an injected pod lacks, in words that follow "but".
func (d *decision) missing(status Status) string {
	at := slices.IndexFunc(d.pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == ContainerName })
	if at < 0 {
		return "there is no init container " + ContainerName
	}
	c := &d.pod.Spec.InitContainers[at]
	if !isNative(c) {
		return "its container has no restartPolicy Always"
	}
	// Another build may name its arguments otherwise; it answers for them itself.
	if status.Template == Template(d.options) && !slices.Contains(c.Args, upstream(status.Port)) {
		return "its container lacks the argument " + upstream(status.Port)
	}
	for _, port := range []int32{ListenPort, AdminPort} {
		if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.ContainerPort == port }) {
			return fmt.Sprintf("its container lacks port %d", port)
		}
	}
	for _, name := range []string{settingsVolume, identityVolume} {
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == name }) ||
			!slices.ContainsFunc(d.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name }) {
			return "volume " + name + " is missing"
		}
	}
	if status.Capture == api.CaptureRedirect {
		if missing := d.missingRedirect(status, at); missing != "" {
			return missing
		}
		return d.strays(c, status.Port)
	}
	return ""
}

// missingRedirect is the same for Redirect capture, of a pod whose sidecar is at an index.
func (d *decision) missingRedirect(status Status, sidecar int) string {
	at := slices.IndexFunc(d.pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == RedirectContainerName })
	switch {
	case at < 0:
		return "there is no init container " + RedirectContainerName
	case at > sidecar:
		return "its init container " + RedirectContainerName + " comes after the sidecar"
	case isNative(&d.pod.Spec.InitContainers[at]):
		return "its init container " + RedirectContainerName + " has restartPolicy Always"
	case status.Template == Template(d.options) && !slices.Contains(d.pod.Spec.InitContainers[at].Args, redirected(status.Port)):
		return "its init container " + RedirectContainerName + " lacks the argument " + redirected(status.Port)
	}
	return ""
}
