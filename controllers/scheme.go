// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// Scheme knows the kinds of Kubernetes and ours. It panics when they contradict
// each other, which only a programming error can cause.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(fmt.Sprintf("build the scheme: %v", err))
		}
	}
	return scheme
}
