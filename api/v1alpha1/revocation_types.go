// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RevocationOrder is which sessions an administrator ends.
//
// +kubebuilder:validation:Enum=RevokeSubject;RevokeAll
type RevocationOrder string

// The orders.
const (
	// RevokeSubject ends the sessions of one subject, the value of the annotation
	// tokenward.io/revoke-subject.
	RevokeSubject RevocationOrder = "RevokeSubject"
	// RevokeAll ends the sessions that began until a moment, the value of the annotation
	// tokenward.io/revoke-all in RFC 3339.
	RevokeAll RevocationOrder = "RevokeAll"
)

// RevocationState is how far an order is.
//
// +kubebuilder:validation:Enum=InProgress;Completed;Refused
type RevocationState string

// The states.
const (
	// RevocationInProgress: it is being carried out, and tried again until it is done.
	RevocationInProgress RevocationState = "InProgress"
	// RevocationCompleted: the sessions are revoked in the store, and on their way to
	// the sidecars.
	RevocationCompleted RevocationState = "Completed"
	// RevocationRefused: the annotation's value is not understood, and nothing was done.
	RevocationRefused RevocationState = "Refused"
)

// Revocation is what came of an administrator's order.
type Revocation struct {
	// order is RevokeSubject or RevokeAll.
	// +required
	Order RevocationOrder `json:"order,omitempty"`

	// value of the annotation, or its beginning. Removing the annotation clears this
	// entry; the same value can be ordered again then.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Value string `json:"value"`

	// state of the order.
	// +required
	State RevocationState `json:"state,omitempty"`

	// orderTime is when the issuer saw the annotation. Of the subject's sessions those
	// end that began until then.
	// +required
	OrderTime metav1.Time `json:"orderTime,omitzero"`

	// completionTime is when the last session was revoked in the store.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`

	// sessions is how many were revoked by this order.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Sessions int32 `json:"sessions"`

	// message says what is wrong, or why it takes longer.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}
