// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Users is exactly one source of users.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
type Users struct {
	// secret holds one user per key.
	// +required
	Secret *SecretUsers `json:"secret,omitempty"`
}

// SecretUsers is a Secret with one key per user id, each a JSON object of
// attributes, for example
// {"password": "$argon2id$v=19$…", "phone": "+82 10 1234 5678", "role": "admin"}.
// The attribute "disabled": true shuts a user out.
type SecretUsers struct {
	// name of the Secret of this namespace. The namespace must grant reading it to
	// the issuer; the UsersReady condition holds the lines to do so.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// fields are what a login must present beside "id"; each must match the user's
	// attribute of that name. An attribute that is an argon2id or bcrypt hash is
	// verified as one, any other is compared in constant time; "password" must be a hash.
	// +optional
	// +kubebuilder:default={password}
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:XValidation:rule="!('id' in self) && !('disabled' in self)",message="fields are compared with the user's attributes, and id always is presented: remove id and disabled, and name at least one attribute such as password or phone"
	Fields []string `json:"fields,omitempty"`
}
