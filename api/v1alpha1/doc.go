// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is the public API of Tokenward: the kinds SigningKey and
// TokenPolicy, their condition types and reasons, and the annotations and
// labels that workloads carry.
//
// It owns names, shapes and every rule that CEL can express. What the objects
// cause to happen is owned by the controllers.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +groupName=tokenward.io
package v1alpha1
