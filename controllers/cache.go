// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

// CacheOptions limits the manager's cache, given the operator's namespace:
//
//	Secrets     of the operator's namespace alone: key rings and certificates
//	ConfigMaps  of the operator's namespace: public records of keys; elsewhere: settings
//	Pods        metadata alone, those with the sidecar that have not ended
//	Services    where they lead, those that can lead to pods
//	NetworkPolicies  those that a TokenPolicy asked for
//
// Session ConfigMaps are left out on purpose: they are large, many, and rewritten
// with every login. What is not in the cache is read with the manager's APIReader.
func CacheOptions(namespace string) cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {
				Namespaces: map[string]cache.Config{
					namespace: {LabelSelector: component(owned.SigningKey, owned.Certificates)},
				},
			},
			&corev1.ConfigMap{}: {
				Namespaces: map[string]cache.Config{
					namespace:           {LabelSelector: component(owned.SigningKey, owned.Settings)},
					cache.AllNamespaces: {LabelSelector: component(owned.Settings)},
				},
			},
			&corev1.Pod{}: {
				Label: labels.SelectorFromSet(labels.Set{api.InjectedLabel: "true"}),
				// A Job's finished pods stay around and run no sidecar.
				Field: fields.AndSelectors(
					fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
					fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
				),
				Transform: stripPod,
			},
			&corev1.Service{}: {
				Field:     fields.OneTermNotEqualSelector("spec.type", string(corev1.ServiceTypeExternalName)),
				Transform: stripService,
			},
			&networkingv1.NetworkPolicy{}: {Label: component(owned.NetworkPolicy)},
		},
	}
}

// component selects objects by [api.ComponentLabel].
func component(values ...string) labels.Selector {
	requirement, err := labels.NewRequirement(api.ComponentLabel, selection.In, values)
	if err != nil {
		panic(err) // the values are constants of this module
	}
	return labels.NewSelector().Add(*requirement)
}

// stripPod leaves of a pod's metadata what counting, the selectors of Services and
// choosing pods to try need.
// Ten thousand pods with all their annotations and managed fields would be most of the
// manager's memory.
func stripPod(object any) (any, error) {
	pod, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil
	}
	kept := make(map[string]string, 2)
	for _, key := range []string{api.PolicyAnnotation, api.StatusAnnotation} {
		if value, found := pod.Annotations[key]; found {
			kept[key] = value
		}
	}
	owner := metav1.GetControllerOf(pod) // pods of one owner are alike
	pod.ObjectMeta = metav1.ObjectMeta{
		Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		DeletionTimestamp: pod.DeletionTimestamp, Annotations: kept, Labels: pod.Labels,
	}
	if owner != nil {
		pod.OwnerReferences = []metav1.OwnerReference{{UID: owner.UID, Controller: owner.Controller}}
	}
	return pod, nil
}

// stripService leaves of a Service where it leads.
func stripService(object any) (any, error) {
	service, ok := object.(*corev1.Service)
	if !ok {
		return object, nil
	}
	service.ObjectMeta = metav1.ObjectMeta{
		Name: service.Name, Namespace: service.Namespace, UID: service.UID, ResourceVersion: service.ResourceVersion,
	}
	service.Spec = corev1.ServiceSpec{
		Type: service.Spec.Type, Selector: service.Spec.Selector, Ports: service.Spec.Ports, ClusterIP: service.Spec.ClusterIP,
	}
	service.Status = corev1.ServiceStatus{}
	return service, nil
}
