// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/protocol"
)

// What the sidecar is called and where it listens; design section 6.
const (
	// ContainerName of the native sidecar.
	ContainerName = "tokenward"
	// ListenPort takes the requests.
	ListenPort = 18080
	// AdminPort has health, readiness and metrics.
	AdminPort = 18081

	settingsVolume = "tokenward-settings"
	settingsDir    = "/etc/tokenward"
	identityVolume = "tokenward-identity"
	// identityDir is where Kubernetes mounts its API token: the ServiceAccount
	// admission plugin leaves a container alone that has something there already,
	// and so the sidecar never holds a token for the Kubernetes API.
	identityDir = "/var/run/secrets/kubernetes.io/serviceaccount"

	listenPortName = "tokenward"
	adminPortName  = "tokenward-admin"

	program = "/tokenward-sidecar" // in the image

	probesArgument = "--probes="

	nonRoot = 65532 // the "nonroot" user of distroless images
)

// sidecar is the container for one application port.
//
// Probes is the list of those that it runs for the kubelet; "" for none.
func sidecar(o Options, t target, resources corev1.ResourceRequirements, probes string) corev1.Container {
	c := corev1.Container{
		Name:            ContainerName,
		Image:           o.SidecarImage,
		ImagePullPolicy: o.SidecarImagePullPolicy,
		Command:         []string{program},
		Args: []string{
			fmt.Sprintf("--listen=:%d", ListenPort),
			adminListen(),
			upstream(t.number),
			"--settings-dir=" + settingsDir,
			"--identity-token-file=" + identityDir + "/token",
			// Below the 30s that Kubernetes gives a pod by default.
			"--drain-timeout=25s",
		},
		Ports: []corev1.ContainerPort{
			{Name: t.sidecarPortName(), ContainerPort: ListenPort, Protocol: corev1.ProtocolTCP},
			{Name: adminPortName, ContainerPort: AdminPort, Protocol: corev1.ProtocolTCP},
		},
		Resources: resources,
		VolumeMounts: []corev1.VolumeMount{
			{Name: settingsVolume, MountPath: settingsDir, ReadOnly: true},
			{Name: identityVolume, MountPath: identityDir, ReadOnly: true},
		},
		// A native sidecar: it is up before the application starts and outlives it.
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		// A minute, because on a node without free CPU a restart makes everything worse.
		LivenessProbe:  ownProbe("/healthz", 10, 6),
		ReadinessProbe: ownProbe("/readyz", 5, 2),
		// The application's containers start once the first has ended, and begin to end
		// beside the second.
		Lifecycle:                &corev1.Lifecycle{PostStart: ownHook("postStart"), PreStop: ownHook("preStop")},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		// The "restricted" Pod Security Standard, whatever the pod says for itself.
		SecurityContext: &corev1.SecurityContext{
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			Privileged:               new(false),
			RunAsUser:                new(int64(nonRoot)),
			RunAsGroup:               new(int64(nonRoot)),
			RunAsNonRoot:             new(true),
			ReadOnlyRootFilesystem:   new(true),
			AllowPrivilegeEscalation: new(false),
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
	if probes != "" {
		c.Args = append(c.Args, probesArgument+probes)
	}
	return c
}

// ownHook runs in the container: the kubelet's requests are like anybody's.
func ownHook(name string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{
		Command: []string{program, "--hook=" + name, adminListen()},
	}}
}

func adminListen() string { return fmt.Sprintf("--admin-listen=:%d", AdminPort) }

func upstream(port int32) string { return fmt.Sprintf("--upstream=127.0.0.1:%d", port) }

// ownProbe has no host: Pod Security refuses one since Kubernetes 1.34.
func ownProbe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt32(AdminPort), Scheme: corev1.URISchemeHTTP,
		}},
		TimeoutSeconds:   2,
		PeriodSeconds:    period,
		SuccessThreshold: 1,
		FailureThreshold: failures,
	}
}

// volumes are the policy's settings, and a token that says to the issuer which pod is asking.
func volumes(policy string) []corev1.Volume {
	return []corev1.Volume{
		{Name: settingsVolume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: owned.SettingsName(policy)},
			DefaultMode:          new(int32(0o444)),
		}}},
		{Name: identityVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: new(int32(0o444)),
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience: protocol.Audience, ExpirationSeconds: new(int64(3600)), Path: "token",
			}}},
		}}},
	}
}
