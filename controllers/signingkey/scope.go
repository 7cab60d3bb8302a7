// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/token"
)

// scope is what the phases of one reconciliation know.
type scope struct {
	key *api.SigningKey
	now time.Time

	// secret and record are what is stored; nil when it is not there.
	secret *corev1.Secret
	record *corev1.ConfigMap
	// public is what the record holds; nil when there is none that can be read.
	public *keyring.Ring
	// ring is what is stored, and after [reconciler.advance] what is to be stored.
	ring *keyring.Ring

	// retention is how long after its last signature a key may still be needed.
	retention time.Duration
	// imported is the private key of spec.importFrom; nil when keys are generated, or
	// when the import is refused.
	imported *token.PrivateKey
	// refused is what is wrong with the import; nil when nothing is.
	refused *refusal

	// events are what happened to the keys, to be told once it is stored.
	events []keyring.Event
	// fault is what the system did wrong while the keys advanced.
	fault error
	// recheck is how long until something is to be done.
	recheck time.Duration
}

// refusal is a reason and a message of the Ready condition.
type refusal struct{ reason, message string }

func (s *scope) refuse(reason, format string, args ...any) {
	s.refused = &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
}
