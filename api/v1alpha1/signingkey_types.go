// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SigningAlgorithm is a JWS "alg" value (RFC 7518 section 3.1, RFC 8037).
//
// +kubebuilder:validation:Enum=EdDSA;ES256;ES384;ES512;RS256;RS384;RS512;PS256;PS384;PS512
type SigningAlgorithm string

// SigningKeySpec says which key signs and when it is replaced.
//
// +kubebuilder:validation:XValidation:rule="!has(self.rsaKeyBits) || self.algorithm.startsWith('RS') || self.algorithm.startsWith('PS')",fieldPath=".rsaKeyBits",message="rsaKeyBits is only for RSA: remove it, or choose an algorithm that starts with RS or PS"
// +kubebuilder:validation:XValidation:rule="!has(self.rsaKeyBits) || !has(self.importFrom)",fieldPath=".rsaKeyBits",message="rsaKeyBits is for generated keys: remove it, the imported key has its own size"
// +kubebuilder:validation:XValidation:rule="!has(self.importFrom) || !has(self.rotation) || !has(self.rotation.interval)",fieldPath=".rotation.interval",message="an imported key is replaced when its Secret changes: remove rotation.interval, or remove importFrom to have keys generated"
type SigningKeySpec struct {
	// algorithm is the JWS algorithm of new keys (RFC 7518 section 3.1). A change
	// causes a rotation: keys that exist keep the algorithm they were made for.
	// +optional
	// +kubebuilder:default=ES256
	Algorithm SigningAlgorithm `json:"algorithm,omitempty"`

	// rsaKeyBits is the modulus size of generated RSA keys, in bits; 3072 when not set.
	// A change takes effect at the next rotation.
	// +optional
	// +kubebuilder:validation:Minimum=2048
	// +kubebuilder:validation:Maximum=8192
	RSAKeyBits *int32 `json:"rsaKeyBits,omitempty"`

	// rotation says when a key is replaced.
	// +optional
	Rotation *Rotation `json:"rotation,omitempty"`

	// importFrom takes the private key from a Secret instead of generating one.
	// When the Secret's content changes, the new key is published and takes over
	// as in a rotation.
	// +optional
	ImportFrom *ImportSource `json:"importFrom,omitempty"`

	// revokedKeyIDs are keys that stop verifying now: every token they signed is
	// refused. When the active key is among them, a new one takes over at once.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9_-]+$`
	RevokedKeyIDs []string `json:"revokedKeyIDs,omitempty"`
}

// Rotation says when a key is replaced by a new one.
//
// +kubebuilder:validation:XValidation:rule="!has(self.interval) || duration(self.interval) >= duration('1h')",fieldPath=".interval",message="interval must be at least 1h: write for example 720h"
// +kubebuilder:validation:XValidation:rule="!has(self.publishBefore) || duration(self.publishBefore) >= duration('3m')",fieldPath=".publishBefore",message="publishBefore must be at least 3m, because kubelets deliver a changed key set up to 90s late: write for example 5m"
// +kubebuilder:validation:XValidation:rule="duration(has(self.publishBefore) ? self.publishBefore : '5m') < duration(has(self.interval) ? self.interval : '720h')",fieldPath=".publishBefore",message="publishBefore must be shorter than interval: a key is published only once before it signs"
type Rotation struct {
	// interval is how long a key signs before the next one takes over; at least 1h,
	// 720h when not set.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	Interval *metav1.Duration `json:"interval,omitempty"`

	// publishBefore is how long the public key is out before it signs; at least 3m,
	// 5m when not set. Kubelets deliver a changed ConfigMap up to 90s late.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	PublishBefore *metav1.Duration `json:"publishBefore,omitempty"`
}

// ImportSource says where a private key comes from.
type ImportSource struct {
	// secretRef names the Secret of this namespace that holds the private key in PEM
	// (PKCS #8, SEC 1 or PKCS #1). The namespace must grant reading it to the operator;
	// the Ready condition holds the lines to do so.
	// +required
	SecretRef SecretKeyReference `json:"secretRef,omitzero"`
}

// SecretKeyReference names one key of a Secret in the same namespace.
type SecretKeyReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// key inside the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	Key string `json:"key,omitempty"`
}

// KeyState is where a key is in its life. Keys only move forward:
//
//	Published ──▶ Active ──▶ Retired ──▶ (removed)
//	in the key    signs      verifies     refused
//	set, does
//	not sign
//
// +kubebuilder:validation:Enum=Published;Active;Retired
type KeyState string

// The states of a key.
const (
	// KeyPublished: in the key set, so that every verifier knows it before it signs.
	KeyPublished KeyState = "Published"
	// KeyActive: signs new tokens.
	KeyActive KeyState = "Active"
	// KeyRetired: verifies what it signed; its private half is deleted.
	KeyRetired KeyState = "Retired"
)

// KeyStatus reports one key. The key's Secret is the truth, this is the report of it.
type KeyStatus struct {
	// id is the RFC 7638 thumbprint of the public key, the "kid" of its tokens.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`

	// algorithm of the key.
	// +required
	Algorithm SigningAlgorithm `json:"algorithm,omitempty"`

	// state of the key.
	// +required
	State KeyState `json:"state,omitempty"`

	// publishedAt is when the public key came into the key set.
	// +optional
	PublishedAt *metav1.Time `json:"publishedAt,omitempty"`

	// activeFrom is when the key signs, or will sign.
	// +optional
	ActiveFrom *metav1.Time `json:"activeFrom,omitempty"`

	// retiredAt is when the next key took over.
	// +optional
	RetiredAt *metav1.Time `json:"retiredAt,omitempty"`

	// removeAfter is when the last token it signed is certainly dead and the key leaves the key set.
	// +optional
	RemoveAfter *metav1.Time `json:"removeAfter,omitempty"`
}

// SigningKeyStatus reports the keys.
type SigningKeyStatus struct {
	// observedGeneration is the generation of the spec that this status reports on.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions of the key: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// activeKeyID is the "kid" of new tokens.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ActiveKeyID string `json:"activeKeyID,omitempty"`

	// keys in the key set, newest first.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=64
	Keys []KeyStatus `json:"keys,omitempty"`
}

// SigningKey is the key that signs the tokens of one or more TokenPolicies of
// its namespace. Its private half lives in the operator's namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=skey,categories=tokenward
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Algorithm",type=string,JSONPath=`.spec.algorithm`
// +kubebuilder:printcolumn:name="Active Key",type=string,priority=1,JSONPath=`.status.activeKeyID`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="metadata.name must have at most 63 characters: choose a shorter name"
type SigningKey struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata; the name has at most 63 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says which key signs and when it is replaced.
	// +optional
	// +kubebuilder:default={}
	Spec SigningKeySpec `json:"spec,omitzero"`
	// status reports the keys.
	// +optional
	Status SigningKeyStatus `json:"status,omitzero"`
}

// SigningKeyList is a list of SigningKeys.
//
// +kubebuilder:object:root=true
type SigningKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []SigningKey `json:"items"`
}
