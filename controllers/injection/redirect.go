// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// RedirectContainerName of the init container that sets the rules of Redirect capture.
const RedirectContainerName = "tokenward-redirect"

// redirect is the init container that leads the application's port to the sidecar. It
// comes first of all: whatever starts in the pod, its port is closed by then.
func redirect(o Options, t target, resources corev1.ResourceRequirements) corev1.Container {
	return corev1.Container{
		Name:            RedirectContainerName,
		Image:           o.SidecarImage,
		ImagePullPolicy: o.SidecarImagePullPolicy,
		Command:         []string{"/tokenward-redirect"},
		Args:            []string{redirected(t.number), fmt.Sprintf("--to=%d", ListenPort)},
		// The sidecar's own: where quotas, limit ranges and quality of service admit
		// that one, they admit this one.
		Resources: *resources.DeepCopy(),
		// It reads no token. This one is mounted so that the ServiceAccount admission
		// plugin mounts none for the Kubernetes API.
		VolumeMounts:             []corev1.VolumeMount{{Name: identityVolume, MountPath: identityDir, ReadOnly: true}},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		// Root, because a capability that is added reaches no other user. Root has no
		// other capability, and there is no file that it could write.
		SecurityContext: &corev1.SecurityContext{
			Capabilities: &corev1.Capabilities{
				Add:  []corev1.Capability{"NET_ADMIN"},
				Drop: []corev1.Capability{"ALL"},
			},
			Privileged:               new(false),
			RunAsUser:                new(int64(0)),
			RunAsGroup:               new(int64(0)),
			RunAsNonRoot:             new(false),
			ReadOnlyRootFilesystem:   new(true),
			AllowPrivilegeEscalation: new(false),
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

func redirected(port int32) string { return fmt.Sprintf("--port=%d", port) }

// redirectForbidden is for a namespace whose Pod Security Standard has no place for
// [redirect]. Pod Security itself would name a container that nobody has written.
func redirectForbidden() *Refusal {
	return refuse(CaptureForbidden, "annotation %s=%s: the namespace enforces the Pod Security Standard baseline or restricted (label pod-security.kubernetes.io/enforce), "+
		"which forbids the capability NET_ADMIN that the init container %s needs: use %s, or move the workload to a namespace that enforces no more than privileged",
		api.CaptureAnnotation, quote(string(api.CaptureRedirect)), RedirectContainerName, quote(string(api.CapturePort)))
}

// checkUDP refuses HTTP/3 on the application's port, where the rules drop it.
func (d *decision) checkUDP(c *corev1.Container) *Refusal {
	for _, p := range c.Ports {
		if p.ContainerPort == d.target.number && p.Protocol == corev1.ProtocolUDP {
			return refuse(PortProtocol, "container %s declares the application's port %d for UDP too: the sidecar speaks HTTP over TCP only, and under capture Redirect nothing else reaches that port: remove the declaration, or use another port for UDP",
				quote(c.Name), p.ContainerPort)
		}
	}
	return nil
}
