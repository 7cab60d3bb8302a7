// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Enforcement says what happens to a request that is not allowed.
//
// +kubebuilder:validation:Enum=Enforce;Audit
type Enforcement string

// The enforcement modes.
const (
	// Enforce refuses it.
	Enforce Enforcement = "Enforce"
	// Audit decides, counts and logs, then lets it through without identity headers.
	Audit Enforcement = "Audit"
)

// NetworkPolicyMode says whether a NetworkPolicy closes the pods' other ports.
//
// +kubebuilder:validation:Enum=None;Enforce
type NetworkPolicyMode string

// The modes of spec.networkPolicy.
const (
	// NetworkPolicyNone makes none, and removes the one that was made.
	NetworkPolicyNone NetworkPolicyMode = "None"
	// NetworkPolicyEnforce admits connections to the sidecar's ports only.
	NetworkPolicyEnforce NetworkPolicyMode = "Enforce"
)

// TokenPolicySpec says who may call the workloads that name this policy, and
// how their tokens are made, checked and refreshed.
//
// +kubebuilder:validation:XValidation:rule="duration(self.accessToken.ttl) <= duration(self.refresh.idleTimeout)",fieldPath=".accessToken.ttl",message="accessToken.ttl must not be longer than refresh.idleTimeout: shorten ttl or lengthen idleTimeout"
// +kubebuilder:validation:XValidation:rule="duration(self.refresh.idleTimeout) <= duration(self.refresh.absoluteTimeout)",fieldPath=".refresh.idleTimeout",message="refresh.idleTimeout must not be longer than refresh.absoluteTimeout: shorten idleTimeout or lengthen absoluteTimeout"
// +kubebuilder:validation:XValidation:rule="duration(self.refresh.early) < duration(self.accessToken.ttl)",fieldPath=".refresh.early",message="refresh.early must be shorter than accessToken.ttl, or every request would refresh: shorten early, 0s turns it off"
// +kubebuilder:validation:XValidation:rule="duration(self.refresh.reuseGrace) < duration(self.accessToken.ttl)",fieldPath=".refresh.reuseGrace",message="refresh.reuseGrace must be shorter than accessToken.ttl, or a request could be taken for a thief's while its token's successor has expired already: shorten reuseGrace or lengthen ttl"
// +kubebuilder:validation:XValidation:rule="!has(self.accessToken.claims) || self.accessToken.claims.all(c, c.attribute != 'password')",fieldPath=".accessToken.claims",message="the attribute password never goes into a token: remove the claim"
type TokenPolicySpec struct {
	// enforcement is Enforce, or Audit to see what would be refused before refusing it.
	// +optional
	// +kubebuilder:default=Enforce
	Enforcement Enforcement `json:"enforcement,omitempty"`

	// signingKeyRef names the SigningKey of this namespace that signs the tokens.
	// +required
	SigningKeyRef SigningKeyReference `json:"signingKeyRef,omitzero"`

	// issuer is the "iss" claim of new tokens, required of presented ones (RFC 7519 section 4.1.1).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && url(self).getHost() != '' && !self.contains('?') && !self.contains('#')",message="issuer must be an https URL without query or fragment (RFC 8414 section 2): write for example https://shop.example.com"
	Issuer string `json:"issuer,omitempty"`

	// audiences are the "aud" claim of new tokens; a presented token needs one of them
	// (RFC 7519 section 4.1.3).
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Audiences []string `json:"audiences,omitempty"`

	// leeway is the clock difference that every time check allows; at most 60s.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('60s')",message="leeway must be at most 60s: mend the clocks instead of allowing more"
	Leeway *metav1.Duration `json:"leeway,omitempty"`

	// accessToken shapes the tokens.
	// +optional
	// +kubebuilder:default={}
	AccessToken AccessToken `json:"accessToken,omitzero"`

	// users is the source that knows the users.
	// +required
	Users Users `json:"users,omitzero"`

	// login limits how often a login may be tried.
	// +optional
	// +kubebuilder:default={}
	Login Login `json:"login,omitzero"`

	// refresh says how an expired token is exchanged for a new one.
	// +optional
	// +kubebuilder:default={}
	Refresh Refresh `json:"refresh,omitzero"`

	// store is where sessions, the server-side refresh tokens, live.
	// +optional
	// +kubebuilder:default={configMap: {}}
	Store Store `json:"store,omitzero"`

	// rules decide by path and method; the first match wins, and a request that
	// matches none must be authenticated.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Rules []Rule `json:"rules,omitempty"`

	// upstream says what the application is told about the caller.
	// +optional
	// +kubebuilder:default={}
	Upstream Upstream `json:"upstream,omitzero"`

	// denial shapes the answer to a failed authentication.
	// +optional
	// +kubebuilder:default={}
	Denial Denial `json:"denial,omitzero"`

	// endpoints says where clients find login, refresh, logout, me and the key set.
	// +optional
	// +kubebuilder:default={}
	Endpoints Endpoints `json:"endpoints,omitzero"`

	// networkPolicy is None, or Enforce to have a NetworkPolicy tokenward-<name of this policy>
	// that admits connections to the sidecar's ports (18080 and 18081, TCP) only: every other
	// port of the pods is closed, to Services and to who dials a pod's address. It holds
	// where the cluster's network enforces NetworkPolicies, and another NetworkPolicy that
	// selects the same pods can open a port again.
	// +optional
	// +kubebuilder:default=None
	NetworkPolicy NetworkPolicyMode `json:"networkPolicy,omitempty"`
}

// SigningKeyReference names a SigningKey of the same namespace.
type SigningKeyReference struct {
	// name of the SigningKey.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`
}

// PodCounts counts the running pods that carry the sidecar under this policy.
type PodCounts struct {
	// injected is how many there are.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Injected int32 `json:"injected"`

	// outdated is how many of them carry another sidecar than would be injected now:
	// restart them to get it. A changed policy reaches pods without a restart.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Outdated int32 `json:"outdated"`
}

// TokenPolicyStatus reports what is in force.
type TokenPolicyStatus struct {
	// observedGeneration is the generation of the spec that this status reports on.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions of the policy: Ready, SettingsPublished, UsersReady, StoreReady, Bypassable,
	// and NetworkPolicyApplied where spec.networkPolicy asks for one.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// revocations are the administrator's latest orders, by the annotations
	// tokenward.io/revoke-subject and tokenward.io/revoke-all, and what came of them.
	// +optional
	// +listType=map
	// +listMapKey=order
	// +kubebuilder:validation:MaxItems=2
	Revocations []Revocation `json:"revocations,omitempty"`

	// pods counts the pods under this policy.
	// +optional
	Pods *PodCounts `json:"pods,omitempty"`
}

// TokenPolicy is what a pod names in its annotation tokenward.io/policy to get
// token authentication.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=tokenpolicies,shortName=tpol,categories=tokenward
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods.injected`
// +kubebuilder:printcolumn:name="Outdated",type=integer,priority=1,JSONPath=`.status.pods.outdated`
// +kubebuilder:printcolumn:name="Bypassable",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Bypassable")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="metadata.name must have at most 63 characters: choose a shorter name"
type TokenPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata; the name has at most 63 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says who may call, and how tokens are made, checked and refreshed.
	// +required
	Spec TokenPolicySpec `json:"spec,omitzero"`
	// status reports what is in force.
	// +optional
	Status TokenPolicyStatus `json:"status,omitzero"`
}

// TokenPolicyList is a list of TokenPolicies.
//
// +kubebuilder:object:root=true
type TokenPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []TokenPolicy `json:"items"`
}
