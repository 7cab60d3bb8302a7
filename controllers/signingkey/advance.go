// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/token"
)

// What holds when the spec does not say; documented with the fields.
const (
	defaultInterval      = 720 * time.Hour
	defaultPublishBefore = 5 * time.Minute
	defaultRSABits       = 3072
)

const (
	// importInterval is how often an imported key's Secret is read again: it is in the
	// tenant's namespace, where the manager may not watch.
	importInterval = time.Minute
	// longestWait bounds what a clock that was set back can delay.
	longestWait = time.Hour
)

// advance moves the keys on to what the spec wants by now.
func (r *reconciler) advance(_ context.Context, s *scope) error {
	plan := plan(s)
	giveBack(s.ring, s.imported)
	postpone(s.ring, s.public, plan.Now, plan.PublishBefore)
	next, events, recheck, err := keyring.Advance(s.ring, plan)
	s.ring, s.events, s.recheck = next, events, wait(recheck, s.key.Spec.ImportFrom != nil)

	var unusable *keyring.ImportError
	switch {
	case errors.As(err, &unusable):
		s.refuse(api.ReasonKeyInvalid, "spec.importFrom.secretRef: %v.", unusable)
	case errors.Is(err, keyring.ErrNoSource) && s.refused != nil:
		// The refusal says why there is none.
	case err != nil:
		// What the ring became without a new key is stored before the error is returned.
		s.fault = fmt.Errorf("SigningKey %q: %w", s.key.Name, err)
	}
	return nil
}

// plan is what the spec wants, as the key ring understands it. It is a pure function.
func plan(s *scope) keyring.Plan {
	spec := s.key.Spec
	plan := keyring.Plan{
		Now:           s.now,
		Algorithm:     token.Algorithm(spec.Algorithm),
		RSABits:       defaultRSABits,
		Interval:      defaultInterval,
		PublishBefore: defaultPublishBefore,
		Retention:     s.retention,
		RotateRequest: s.key.Annotations[api.RotateAnnotation],
		RevokedKeyIDs: spec.RevokedKeyIDs,
		Import:        s.imported,
	}
	if spec.RSAKeyBits != nil {
		plan.RSABits = int(*spec.RSAKeyBits)
	}
	if spec.Rotation != nil {
		plan.Interval = of(spec.Rotation.Interval, defaultInterval)
		plan.PublishBefore = of(spec.Rotation.PublishBefore, defaultPublishBefore)
	}
	// An import that is broken for now must not make us generate a key.
	if spec.ImportFrom == nil {
		plan.Generate = token.GenerateKey
	}
	return plan
}

// wait is when to look again.
func wait(recheck time.Duration, imports bool) time.Duration {
	if recheck == 0 || recheck > longestWait {
		recheck = longestWait
	}
	if imports {
		recheck = min(recheck, importInterval)
	}
	return recheck
}

// lost says whether the private half of a key was lost.
func (s *scope) lost() bool {
	for _, event := range s.events {
		if event.Type == keyring.KeyLost {
			return true
		}
	}
	return false
}

// announce makes Events of what happened to the keys, now that it is stored.
func (r *reconciler) announce(_ context.Context, s *scope) error {
	for _, event := range s.events {
		r.recorder.Eventf(s.key, nil, kind(event.Type), string(event.Type), "AdvanceKeys", "%s", owned.Note(event.Message))
	}
	if active, ok := s.ring.Active(); ok && s.lost() {
		r.recorder.Eventf(s.key, nil, corev1.EventTypeWarning, api.ReasonKeyRecovered, "AdvanceKeys",
			"the key ring is recovered from its public record: key %s signs from now on", active.Public.ID)
	}
	return nil
}

// kind is Warning for what people should look into.
func kind(event keyring.EventType) string {
	switch event {
	case keyring.KeyRevoked, keyring.KeyLost, keyring.RotationDeferred, keyring.RotationSkipped:
		return corev1.EventTypeWarning
	case keyring.KeyPublished, keyring.KeyActivated, keyring.KeyRetired, keyring.KeyRemoved:
		return corev1.EventTypeNormal
	}
	return corev1.EventTypeNormal
}
