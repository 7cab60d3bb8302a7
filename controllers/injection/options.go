// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	corev1 "k8s.io/api/core/v1"
)

// Options are what the operator, not the pod's author, decides about the sidecar.
type Options struct {
	// Namespace is the operator's own: pods in it are never injected, or the
	// operator would wait for itself.
	Namespace string
	// SidecarImage is the image with the sidecar's binary. Required.
	SidecarImage string
	// SidecarImagePullPolicy may be empty; Kubernetes then goes by the image's tag.
	SidecarImagePullPolicy corev1.PullPolicy
}

func (o Options) validate() error {
	if o.SidecarImage == "" {
		return errors.New("injection: no sidecar image is set")
	}
	return nil
}

// Template identifies the sidecar that this build injects with these options, apart
// from what differs from pod to pod: 16 hex digits. A pod whose [Status.Template]
// is another one carries an outdated sidecar.
func Template(o Options) string {
	template := struct {
		Container corev1.Container
		Volumes   []corev1.Volume
	}{sidecar(o, target{}, defaultResources(), ""), volumes("")}
	document, err := json.Marshal(template)
	if err != nil {
		// Only types that cannot be marshalled fail, and these are Kubernetes' own.
		panic(err)
	}
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:8])
}
