// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// Status is the value of [api.StatusAnnotation]: what was injected, and from what.
type Status struct {
	Policy    string    `json:"policy"`
	PolicyUID types.UID `json:"policyUID"`
	// Generation of the TokenPolicy when the pod was injected. The sidecar follows
	// later ones by itself; this is for people.
	Generation int64       `json:"generation"`
	Capture    api.Capture `json:"capture"`
	// Port is the application's, in Container.
	Port int32 `json:"port"`
	// PortName is what the application's port was called before the sidecar's took
	// the name over; empty when it had none.
	PortName  string `json:"portName,omitempty"`
	Container string `json:"container"`
	Image     string `json:"image"`
	// Template is [Template] of the injecting build.
	Template string `json:"template"`
}

// ParseStatus reads the annotation of an injected pod.
func ParseStatus(value string) (Status, error) {
	var s Status
	if err := json.Unmarshal([]byte(value), &s); err != nil {
		return Status{}, fmt.Errorf("read annotation %s: %w", api.StatusAnnotation, err)
	}
	if s.Policy == "" || s.Port < 1 || s.Port > 65535 || s.Template == "" {
		return Status{}, fmt.Errorf("read annotation %s: policy, port or template is missing", api.StatusAnnotation)
	}
	return s, nil
}

// String is the annotation's value.
func (s Status) String() string {
	document, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return string(document)
}
