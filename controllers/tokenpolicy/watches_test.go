// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

func TestASigningKeyIsHeardOfWhenItsPoliciesWouldSaySomethingElse(t *testing.T) {
	key := func(uid types.UID, reason string, leaving bool) *api.SigningKey {
		key := &api.SigningKey{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: uid}}
		if reason != "" {
			key.Status.Conditions = []metav1.Condition{{Type: api.ConditionReady, Reason: reason}}
		}
		if leaving {
			key.DeletionTimestamp = new(metav1.Now())
		}
		return key
	}
	for name, c := range map[string]struct {
		after *api.SigningKey
		want  bool
	}{
		"nothing that policies repeat":             {key("1", api.ReasonKeyActive, false), false},
		"another reason":                           {key("1", api.ReasonKeyInvalid, false), true},
		"it is being deleted":                      {key("1", api.ReasonKeyActive, true), true},
		"a namesake, created while nobody watched": {key("2", api.ReasonKeyActive, false), true},
	} {
		t.Run(name, func(t *testing.T) {
			before := key("1", api.ReasonKeyActive, false)
			if got := readinessChanged().Update(event.UpdateEvent{ObjectOld: before, ObjectNew: c.after}); got != c.want {
				t.Errorf("passes: %t", got)
			}
		})
	}
}
