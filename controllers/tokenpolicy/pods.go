// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
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
	s.running = running(pods.Items)
	s.pods = count(s.running, r.options.Template)
	return nil
}

// running are the pods that are not on their way out. It only reads them.
func running(pods []metav1.PartialObjectMetadata) []podFacts {
	facts := make([]podFacts, 0, len(pods))
	for i := range pods {
		if pods[i].DeletionTimestamp == nil {
			facts = append(facts, podFacts{pods[i].Name, workload(&pods[i]), pods[i].Labels, injectedInto(pods[i].Annotations[api.StatusAnnotation])})
		}
	}
	return facts
}

// workload is the UID of what made the pod, and all that are like it.
func workload(pod *metav1.PartialObjectMetadata) string {
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		return string(owner.UID)
	}
	return string(pod.UID)
}

func count(pods []podFacts, template string) api.PodCounts {
	var counts api.PodCounts
	for i := range pods {
		counts.Injected++
		if pods[i].template != template {
			counts.Outdated++
		}
	}
	return counts
}

// injectedInto is what a status annotation says; nothing when it cannot be read, as
// then the sidecar is not one of ours of today.
func injectedInto(annotation string) injected {
	var status struct {
		Template string      `json:"template"`
		Capture  api.Capture `json:"capture"`
		Port     int32       `json:"port"`
		PortName string      `json:"portName"`
	}
	if json.Unmarshal([]byte(annotation), &status) != nil {
		return injected{}
	}
	// Who may edit the pod may write anything, and conditions repeat the name.
	if status.Port < 0 || status.Port > 65535 || status.PortName != "" && len(validation.IsValidPortName(status.PortName)) > 0 {
		return injected{}
	}
	return injected{status.Template, status.Capture, status.Port, status.PortName}
}
