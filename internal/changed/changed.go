// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package changed says which updates of an object a controller looks at. It is shared by
// the manager and the issuer; what only one of them asks is beside its controller.
package changed

import (
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// Spec lets updates pass that are not of metadata or status alone, which change with every
// report. An update may also lead from one object to a namesake, both of generation 1: when
// the watch was interrupted, nothing tells that the one was deleted and the other created.
func Spec() predicate.Predicate {
	return predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() },
	})
}
