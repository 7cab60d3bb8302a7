// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// podPolicyIndex is the cache's index of pods by the policy that they name.
const podPolicyIndex = "metadata.annotations[" + api.PolicyAnnotation + "]"

func podMetadata() *metav1.PartialObjectMetadata {
	pod := &metav1.PartialObjectMetadata{}
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	return pod
}

func podPolicy(pod client.Object) []string {
	if policy := pod.GetAnnotations()[api.PolicyAnnotation]; policy != "" {
		return []string{policy}
	}
	return nil
}

// countPods counts from the cache; it makes no request.
func (r *reconciler) countPods(ctx context.Context, s *scope) error {
	pods := &metav1.PartialObjectMetadataList{}
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	err := r.client.List(ctx, pods, client.InNamespace(s.policy.Namespace),
		client.MatchingFields{podPolicyIndex: s.policy.Name}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return fmt.Errorf("list the pods of TokenPolicy %q: %w", s.policy.Name, err)
	}
	s.pods = count(pods.Items, r.options.Template)
	return nil
}

// count counts the pods that are not on their way out. It only reads them.
func count(pods []metav1.PartialObjectMetadata, template string) api.PodCounts {
	var counts api.PodCounts
	for i := range pods {
		if pods[i].DeletionTimestamp != nil {
			continue
		}
		counts.Injected++
		if injectedTemplate(pods[i].Annotations[api.StatusAnnotation]) != template {
			counts.Outdated++
		}
	}
	return counts
}

// injectedTemplate is the template that a status annotation names; empty when it
// names none that can be read, as then the sidecar is not one of ours of today.
func injectedTemplate(annotation string) string {
	var status struct {
		Template string `json:"template"`
	}
	if json.Unmarshal([]byte(annotation), &status) != nil {
		return ""
	}
	return status.Template
}
