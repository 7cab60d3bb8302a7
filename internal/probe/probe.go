// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package probe is the list of kubelet probes that the sidecar runs in the kubelet's
// place under Redirect capture (design section 6): the webhook writes it into the
// sidecar's arguments, the sidecar reads it. It owns the format and its bounds, and
// leaves finding the probes to controllers/injection and running them to
// sidecar/probes.
package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	// Version of the format. A reader refuses every other one; the webhook writes
	// list and image together, so only a changed pod can have an unfit pair.
	Version = 1
	// MaxBytes bounds a list as it is written. Linux takes arguments of up to 128 KiB.
	MaxBytes = 32 << 10
	// PathPrefix starts the path of every probe on the sidecar's admin port.
	PathPrefix = "/probes/"
)

// List is all probes of a pod that go to the application's port, by their name.
type List struct {
	Version int              `json:"version"`
	Probes  map[string]Probe `json:"probes"`
}

// Probe is one probe as it was declared, with exactly one of HTTP, TCP and GRPC. The
// port is always the application's.
type Probe struct {
	HTTP *HTTP `json:"http,omitempty"`
	TCP  *TCP  `json:"tcp,omitempty"`
	GRPC *GRPC `json:"grpc,omitempty"`
	// TimeoutSeconds that the kubelet gives the probe; at least 1.
	TimeoutSeconds int32 `json:"timeoutSeconds"`
}

// HTTP is a GET.
type HTTP struct {
	// TLS says that the scheme is HTTPS. As with the kubelet, no certificate is checked.
	TLS bool `json:"tls,omitempty"`
	// H2C says that it is HTTP/2 in clear text.
	H2C bool `json:"h2c,omitempty"`
	// Path with the query, if there is one.
	Path    string   `json:"path,omitempty"`
	Headers []Header `json:"headers,omitempty"`
}

// Header is one line of the request's head; a name may come more than once.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TCP is a connection that is opened and closed.
type TCP struct{}

// GRPC is a call of grpc.health.v1.Health/Check.
type GRPC struct {
	Service string `json:"service,omitempty"`
	// TLS as for [HTTP].
	TLS bool `json:"tls,omitempty"`
}

// Name is what a container's probe is called in a list. Kind is "startup",
// "readiness" or "liveness".
func Name(container, kind string) string { return container + "/" + kind }

// Encode writes a list as the value of a container's argument: Kubernetes replaces
// $(NAME) and $$ in these, so no dollar sign is left in it.
func Encode(probes map[string]Probe) (string, error) {
	document, err := json.Marshal(List{Version: Version, Probes: probes})
	if err != nil {
		return "", fmt.Errorf("write the list of probes: %w", err)
	}
	// A dollar sign can only be inside a JSON string.
	value := strings.ReplaceAll(string(document), "$", `\u0024`)
	if len(value) > MaxBytes {
		return "", fmt.Errorf("the probes take %d bytes, and %d is the limit", len(value), MaxBytes)
	}
	return value, nil
}

// Parse reads what [Encode] has written, and nothing else.
func Parse(value string) (map[string]Probe, error) {
	if len(value) > MaxBytes {
		return nil, fmt.Errorf("the list of probes has %d bytes, and %d is the limit", len(value), MaxBytes)
	}
	var version struct{ Version int }
	if err := json.Unmarshal([]byte(value), &version); err != nil {
		return nil, fmt.Errorf("read the list of probes: %w", err)
	}
	if version.Version != Version {
		return nil, fmt.Errorf("the list of probes has version %d, and this release reads version %d: give the container the image that the pod was injected with", version.Version, Version)
	}
	var list List
	decoder := json.NewDecoder(bytes.NewBufferString(value))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("read the list of probes: %w", err)
	}
	for name, p := range list.Probes {
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("probe %q: %w", name, err)
		}
	}
	return list.Probes, nil
}

func (p Probe) validate() error {
	kinds := 0
	for _, is := range []bool{p.HTTP != nil, p.TCP != nil, p.GRPC != nil} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf("it has %d of http, tcp and grpc, and must have one", kinds)
	}
	if p.TimeoutSeconds < 1 {
		return errors.New("its timeout is less than a second")
	}
	return nil
}
