// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package changed

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

func TestAnUpdateCountsWhenTheSpecOrTheObjectIsAnotherOne(t *testing.T) {
	policy := func(uid types.UID, generation int64) *api.TokenPolicy {
		return &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: uid, Generation: generation}}
	}
	for name, c := range map[string]struct {
		after *api.TokenPolicy
		want  bool
	}{
		"only the status": {policy("1", 1), false},
		"another spec":    {policy("1", 2), true},
		"a namesake, created while nobody watched": {policy("2", 1), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Spec().Update(event.UpdateEvent{ObjectOld: policy("1", 1), ObjectNew: c.after}); got != c.want {
				t.Errorf("passes: %t", got)
			}
		})
	}
}
