// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

func TestCount(t *testing.T) {
	pod := func(status string, leaving bool) metav1.PartialObjectMetadata {
		pod := metav1.PartialObjectMetadata{}
		pod.Annotations = map[string]string{api.StatusAnnotation: status}
		if leaving {
			pod.DeletionTimestamp = new(metav1.Now())
		}
		return pod
	}
	got := count(running([]metav1.PartialObjectMetadata{
		pod(`{"template":"now"}`, false),
		pod(`{"template":"now","later":1}`, false),
		pod(`{"template":"before"}`, false),
		pod(`not JSON`, false),
		{},
		pod(`{"template":"before"}`, true),
		pod(`{"template":"now"}`, true),
	}), "now")
	if want := (api.PodCounts{Injected: 5, Outdated: 3}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}
