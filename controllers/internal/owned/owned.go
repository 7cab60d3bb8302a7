// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package owned names the objects that the manager writes and the labels that
// they carry, so that a controller, its watches and the cache agree about them.
//
// It owns names and labels only. What is in the objects is owned by the
// controller that writes them.
package owned

import (
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// FieldOwner is the name under which the manager applies (server-side apply).
const FieldOwner = client.FieldOwner("tokenward-manager")

// ServiceAccount is the name of the manager's service account in the operator's namespace.
const ServiceAccount = "tokenward-manager"

// Values of [api.ComponentLabel].
const (
	// SigningKey marks the Secret and the public record of a SigningKey.
	SigningKey = "signing-key"
	// Settings marks the ConfigMap of a TokenPolicy that pods mount.
	Settings = "settings"
	// NetworkPolicy marks the NetworkPolicy of a TokenPolicy.
	NetworkPolicy = "network-policy"
	// Sessions marks ConfigMaps with sessions. Written by the issuer.
	Sessions = "sessions"
	// Certificates marks the certificate authority and the serving certificates.
	Certificates = "certificates"
)

// Labels on objects in the operator's namespace that belong to a tenant's object.
// They are for people and for watches; the UID in the name is the truth.
const (
	OwnerNamespaceLabel = api.AnnotationPrefix + "owner-namespace"
	OwnerNameLabel      = api.AnnotationPrefix + "owner-name"
	// PolicyUIDLabel holds the UID of the TokenPolicy that sessions belong to.
	PolicyUIDLabel = api.AnnotationPrefix + "policy-uid"
)

// KeyringName is the name of both the Secret and the public record of a SigningKey.
func KeyringName(signingKey types.UID) string { return "skey-" + string(signingKey) }

// KeyringKey is the key inside both.
const KeyringKey = "keyring.json"

// SettingsName is the name of the ConfigMap that pods under a TokenPolicy mount.
func SettingsName(policy string) string { return "tokenward-" + policy }

// NetworkPolicyName is the name of the NetworkPolicy that closes the other ports of
// those pods.
func NetworkPolicyName(policy string) string { return "tokenward-" + policy }

// Labels are those of an object in the operator's namespace that belongs to owner.
func Labels(component string, owner client.Object) map[string]string {
	return map[string]string{
		api.ComponentLabel:  component,
		OwnerNamespaceLabel: owner.GetNamespace(),
		OwnerNameLabel:      owner.GetName(),
	}
}

// Carries says whether the object has all the labels.
func Carries(object client.Object, labels map[string]string) bool {
	has := object.GetLabels()
	for key, value := range labels {
		if has[key] != value {
			return false
		}
	}
	return true
}

// OwnerOf is the tenant's object that an object in the operator's namespace
// belongs to, going by its labels; false when it has none.
func OwnerOf(object client.Object) (types.NamespacedName, bool) {
	labels := object.GetLabels()
	owner := types.NamespacedName{Namespace: labels[OwnerNamespaceLabel], Name: labels[OwnerNameLabel]}
	return owner, owner.Namespace != "" && owner.Name != ""
}
