// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/reach"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// scope is what the phases of one reconciliation know.
type scope struct {
	policy *api.TokenPolicy

	// configMap is the one with the settings' name; nil when there is none.
	configMap *corev1.ConfigMap
	// published are the settings in it; nil when there are none that can be read.
	published *settings.Settings

	// keys is the key set of the policy's SigningKey; nil when it could not be resolved.
	keys *token.KeySet
	// where is what the installation adds; its authorities are empty until they exist.
	where installation

	// content is the settings file to publish; nil when there is none.
	content []byte
	// refused is why this generation of the spec is not published; nil when it is.
	refused *refusal
	// pods are the counts of this moment.
	pods api.PodCounts
	// running are those pods.
	running []podFacts
	// ways lead past their sidecars.
	ways []way
	// tried is what is known of connections to their applications' ports.
	tried reach.Findings
	// networkPolicy is why the NetworkPolicy that the spec asks for is not there; nil
	// when it is, or when none is asked for.
	networkPolicy *refusal
}

// conflictInterval is how often the place of the settings, or of the NetworkPolicy, is
// looked at while somebody else's object is there: the cache does not hold it, so no
// watch tells.
const conflictInterval = time.Minute

// recheck is when to look again at what no watch tells; 0 for never.
func (s *scope) recheck() time.Duration {
	if s.networkPolicy != nil || s.refused != nil && s.refused.reason == api.ReasonConfigMapConflict {
		return conflictInterval
	}
	return 0
}

// refusal is a reason and a message of a condition.
type refusal struct{ reason, message string }

// refuse notes why the spec cannot be published. The first reason stays: the later
// ones often only follow from it.
func (s *scope) refuse(reason, format string, args ...any) {
	if s.refused == nil {
		s.refused = &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
	}
}
