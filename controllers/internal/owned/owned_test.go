// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package owned_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/tokenward/tokenward/controllers/internal/owned"
)

func TestSettle(t *testing.T) {
	resource := schema.GroupResource{Resource: "configmaps"}
	terminating := apierrors.NewForbidden(resource, "a", errors.New("namespace is being terminated"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	denied := apierrors.NewForbidden(resource, "a", errors.New("no"))
	tests := map[string]struct {
		err   error
		again bool
		fails bool
	}{
		"no error":                      {},
		"another writer was faster":     {apierrors.NewConflict(resource, "a", errors.New("newer")), true, false},
		"another writer created it":     {apierrors.NewAlreadyExists(resource, "a"), true, false},
		"the namespace is going away":   {terminating, false, false},
		"the manager may not do it":     {denied, false, true},
		"the API server cannot be seen": {errors.New("connection refused"), false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := test.err
			if err != nil {
				err = fmt.Errorf("apply: %w", err)
			}
			result, err := owned.Settle(ctrl.Result{}, err)
			if (result.RequeueAfter > 0) != test.again || (err != nil) != test.fails {
				t.Errorf("result %+v, error %v", result, err)
			}
		})
	}
	if result, err := owned.Settle(ctrl.Result{RequeueAfter: time.Hour}, nil); err != nil || result.RequeueAfter != time.Hour {
		t.Errorf("a result without an error became %+v, %v", result, err)
	}
}

func TestNoteFitsIntoAnEvent(t *testing.T) {
	for _, message := range []string{"", "short", strings.Repeat("a", 1024), strings.Repeat("a", 1025), strings.Repeat("é", 900), "a" + strings.Repeat("é", 900)} {
		note := owned.Note(message)
		if len(note) > 1024 || !utf8.ValidString(note) || len(message) <= 1024 && note != message {
			t.Errorf("%d bytes became %d: %q", len(message), len(note), note)
		}
	}
}
