// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// OnExpired says what happens to a request whose token has expired and is
// otherwise right.
//
// +kubebuilder:validation:Enum=Refresh;Reject
type OnExpired string

// The answers to an expired token.
const (
	// OnExpiredRefresh buys a new token with the stored refresh token and lets the request through.
	OnExpiredRefresh OnExpired = "Refresh"
	// OnExpiredReject refuses the request; the client logs in again.
	OnExpiredReject OnExpired = "Reject"
)

// OnReuse says what happens when a token that was already exchanged is presented
// for a refresh once more, after the grace.
//
// +kubebuilder:validation:Enum=RevokeSession;Deny
type OnReuse string

// The answers to a reused token.
const (
	// OnReuseRevokeSession ends the session: one of the two holders is a thief (RFC 9700 section 4.14.2).
	OnReuseRevokeSession OnReuse = "RevokeSession"
	// OnReuseDeny refuses this request only.
	OnReuseDeny OnReuse = "Deny"
)

// AccessToken shapes the tokens.
type AccessToken struct {
	// ttl is how long a token is valid; from 30s to 24h.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('30s') && duration(self) <= duration('24h')",message="ttl must be from 30s to 24h: write for example 5m"
	TTL *metav1.Duration `json:"ttl,omitempty"`

	// claims are user attributes that are copied into the token.
	// +optional
	// +listType=map
	// +listMapKey=claim
	// +kubebuilder:validation:MaxItems=16
	Claims []ClaimMapping `json:"claims,omitempty"`
}

// ClaimMapping copies a user attribute into a claim.
type ClaimMapping struct {
	// claim is the name in the token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9_.:/-]*$`
	// +kubebuilder:validation:XValidation:rule="!(self.lowerAscii() in ['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'sid', 'gen', 'client_id', 'typ', 'cnf', 'azp', 'nonce', 'at_hash', 'act', 'scope'])",message="this claim has a fixed meaning and is set by Tokenward or reserved: choose another claim name"
	Claim string `json:"claim,omitempty"`

	// attribute is the name at the user source. A user without it gets a token without the claim.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_.-]*$`
	Attribute string `json:"attribute,omitempty"`
}

// Refresh says how an expired token is exchanged for a new one.
type Refresh struct {
	// onExpired is Refresh, or Reject to have clients log in again. A token that is
	// wrong in any other way is never refreshed.
	// +optional
	// +kubebuilder:default=Refresh
	OnExpired OnExpired `json:"onExpired,omitempty"`

	// responseHeader is the header that carries a new token to the client, as "Bearer <token>".
	// +optional
	// +kubebuilder:default=Authorization
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9-]*$`
	// +kubebuilder:validation:XValidation:rule="!(self.lowerAscii() in ['connection', 'keep-alive', 'proxy-authenticate', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'content-length', 'content-type', 'content-encoding', 'content-range', 'set-cookie', 'location', 'www-authenticate', 'date', 'server', 'vary', 'cache-control', 'etag', 'retry-after', 'host', 'age', 'expires', 'last-modified', 'allow', 'alt-svc', 'link', 'refresh']) && !self.lowerAscii().startsWith('access-control-')",message="this response header has a meaning of its own: use Authorization or a name such as X-New-Token"
	ResponseHeader string `json:"responseHeader,omitempty"`

	// early says how close to its expiry a token is refreshed already; 0s turns it off. A
	// request whose token is still valid never fails because of it.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	Early *metav1.Duration `json:"early,omitempty"`

	// reuseGrace is how long the token before the current one still gets the current
	// one, for answers that were lost and requests sent side by side; at most 60s.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('60s')",message="reuseGrace must be at most 60s: a thief profits from every second of it"
	ReuseGrace *metav1.Duration `json:"reuseGrace,omitempty"`

	// onReuse says what happens to a token that is presented again after the grace.
	// +optional
	// +kubebuilder:default=RevokeSession
	OnReuse OnReuse `json:"onReuse,omitempty"`

	// idleTimeout ends a session that was not refreshed for this long.
	// +optional
	// +kubebuilder:default="12h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	IdleTimeout *metav1.Duration `json:"idleTimeout,omitempty"`

	// absoluteTimeout ends a session this long after the login, whatever happened
	// since; at most 8760h.
	// +optional
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('8760h')",message="absoluteTimeout must be at most 8760h (a year): have users log in again"
	AbsoluteTimeout *metav1.Duration `json:"absoluteTimeout,omitempty"`
}
