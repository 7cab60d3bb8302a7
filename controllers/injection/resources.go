// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// Smallest values that make sense. The one for memory mostly catches "128m", which
// is an eighth of a byte.
const (
	minCPU    = "1m"
	minMemory = "16Mi"
)

// defaultResources ask for little and cap memory. There is no CPU limit: it would
// only add latency. Namespaces with a quota need both requests and a memory limit.
func defaultResources() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("10m"),
			corev1.ResourceMemory: resource.MustParse("32Mi"),
		},
		Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
	}
}

// chooseResources takes the defaults and what the annotations say instead.
func (d *decision) chooseResources() *Refusal {
	d.resources = defaultResources()
	for _, of := range []struct {
		resource              corev1.ResourceName
		requestKey, limitKey  string
		smallest, unitExample string
	}{
		{corev1.ResourceCPU, api.SidecarCPURequestAnnotation, api.SidecarCPULimitAnnotation, minCPU, "50m or 0.5"},
		{corev1.ResourceMemory, api.SidecarMemoryRequestAnnotation, api.SidecarMemoryLimitAnnotation, minMemory, "64Mi or 1Gi"},
	} {
		request, refusal := d.quantity(of.requestKey, of.smallest, of.unitExample)
		if refusal != nil {
			return refusal
		}
		limit, refusal := d.quantity(of.limitKey, of.smallest, of.unitExample)
		if refusal != nil {
			return refusal
		}
		if request != nil && limit != nil && request.Cmp(*limit) > 0 {
			return refuse(ResourcesInvalid, "annotation %s=%s is more than %s=%s: lower the request or raise the limit",
				of.requestKey, quote(d.pod.Annotations[of.requestKey]), of.limitKey, quote(d.pod.Annotations[of.limitKey]))
		}
		d.fit(of.resource, request, limit)
	}
	return nil
}

// fit sets what was asked for; a default gives way to what stands beside it.
func (d *decision) fit(name corev1.ResourceName, request, limit *resource.Quantity) {
	if request != nil {
		d.resources.Requests[name] = *request
	}
	if limit != nil {
		d.resources.Limits[name] = *limit
	}
	asked := d.resources.Requests[name]
	allowed, limited := d.resources.Limits[name]
	switch {
	case !limited || asked.Cmp(allowed) <= 0:
	case request != nil:
		d.resources.Limits[name] = asked
	default:
		d.resources.Requests[name] = allowed
	}
}

// quantity reads one annotation; nil when it is not set.
func (d *decision) quantity(key, smallest, example string) (*resource.Quantity, *Refusal) {
	value, set := d.pod.Annotations[key]
	if !set {
		return nil, nil
	}
	parsed, err := resource.ParseQuantity(value)
	if err != nil {
		return nil, refuse(ResourcesInvalid, "annotation %s=%s is not a quantity: write for example %s", key, quote(value), example)
	}
	if parsed.Cmp(resource.MustParse(smallest)) < 0 {
		return nil, refuse(ResourcesInvalid, "annotation %s=%s is less than %s: write for example %s", key, quote(value), smallest, example)
	}
	return &parsed, nil
}
