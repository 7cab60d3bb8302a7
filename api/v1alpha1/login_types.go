// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Login limits guessing. Only logins that fail count, over all issuers.
type Login struct {
	// perAccount limits the failed logins to one account, from wherever they come.
	// Sessions that exist go on.
	// +optional
	// +kubebuilder:default={burst: 10, interval: "1m"}
	PerAccount AttemptLimit `json:"perAccount,omitzero"`

	// perAddress limits the failed logins from one client address, to whichever account:
	// of IPv6 the /64. It is the address that connects to the sidecar. Behind an ingress
	// or a load balancer that is theirs, and the limit one for all clients.
	// +optional
	// +kubebuilder:default={burst: 100, interval: "1s"}
	PerAddress AttemptLimit `json:"perAddress,omitzero"`
}

// AttemptLimit allows some failures at once, and one more each interval after that.
type AttemptLimit struct {
	// burst is how many may fail at once.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Burst int32 `json:"burst,omitempty"`

	// interval after which one more may fail; 100ms to 24h.
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('24h')",message="interval must be from 100ms to 24h: write for example 1m"
	Interval *metav1.Duration `json:"interval,omitempty"`
}
