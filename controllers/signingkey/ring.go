// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package signingkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/keyring"
	"github.com/tokenward/tokenward/internal/token"
)

// readRing finds the ring of the SigningKey in what is stored.
func (r *reconciler) readRing(ctx context.Context, s *scope) error {
	if err := r.readStored(ctx, s, r.client); err != nil {
		return err
	}
	private, public, err := s.stored()
	if err != nil || private == nil || public == nil || private.Version != public.Version {
		// Either something was lost, or the cache shows the two at different moments.
		if err := r.readStored(ctx, s, r.live); err != nil {
			return err
		}
		private, public, err = s.stored()
	}
	if err != nil {
		return fmt.Errorf("SigningKey %q: %w", s.key.Name, err)
	}
	if private == nil && public == nil {
		if err := r.stillThere(ctx, s); err != nil {
			return err
		}
	}
	s.public = public
	s.ring = newer(string(s.key.UID), private, public)
	return nil
}

// stillThere asks the API server itself before a first key is made: the cache of a
// manager that has just become the leader may show a SigningKey that is gone, and the
// private key made for it would stay for ever.
func (r *reconciler) stillThere(ctx context.Context, s *scope) error {
	found := &api.SigningKey{}
	err := r.live.Get(ctx, client.ObjectKeyFromObject(s.key), found)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get SigningKey %q: %w", s.key.Name, err)
	}
	if err != nil || found.UID != s.key.UID || !found.DeletionTimestamp.IsZero() {
		// What is read from the cache is out of date: try again when it is not.
		return apierrors.NewConflict(schema.GroupResource{Group: api.GroupVersion.Group, Resource: "signingkeys"}, s.key.Name,
			errors.New("it was deleted"))
	}
	return nil
}

// stored parses what is stored; nil for what is not there. A Secret that cannot be
// read is as good as lost when there is a public record to go on from. But what a newer
// release wrote is not lost: replacing it would lose keys that are in use.
func (s *scope) stored() (private, public *keyring.Ring, err error) {
	var unreadable error
	if s.secret != nil {
		private, unreadable = parse(s.secret.Data[owned.KeyringKey], string(s.key.UID))
	}
	if s.record != nil {
		public, err = parse([]byte(s.record.Data[owned.KeyringKey]), string(s.key.UID))
	}
	for _, failed := range []error{unreadable, err} {
		if errors.Is(failed, keyring.ErrNewerFormat) {
			return nil, nil, fmt.Errorf("the keys are left as they are until the manager is upgraded: %w", failed)
		}
	}
	switch {
	case unreadable != nil && public == nil:
		return nil, nil, fmt.Errorf("the Secret cannot be read and there is no public record to recover from: %w", unreadable)
	case err != nil && private == nil:
		return nil, nil, fmt.Errorf("the public record cannot be read and there is no Secret to make it from: %w", err)
	default:
		return private, public, nil
	}
}

func parse(document []byte, owner string) (*keyring.Ring, error) {
	ring, err := keyring.Parse(document)
	if err != nil {
		return nil, err
	}
	if ring.Owner != owner {
		return nil, errors.New("the key ring belongs to another SigningKey")
	}
	return ring, nil
}

// newer is the ring to go on from. The Secret is written first, so it is never behind
// the public record, unless it was lost or comes from a backup. Then the record is
// the truth about which keys there are (a removed one never returns), and the Secret
// gives the private halves that it still has.
func newer(owner string, private, public *keyring.Ring) *keyring.Ring {
	switch {
	case private == nil && public == nil:
		return keyring.New(owner)
	case public == nil || private != nil && private.Version >= public.Version:
		return private
	}
	ring := public.Clone()
	if private != nil {
		for _, key := range private.Keys {
			giveBack(ring, key.Private)
		}
	}
	return ring
}

// giveBack puts a private half where the ring lacks it.
func giveBack(ring *keyring.Ring, private *token.PrivateKey) {
	if private == nil {
		return
	}
	for i := range ring.Keys {
		key := &ring.Keys[i]
		if key.State != keyring.Retired && key.Private == nil && key.Public.ID == private.Public().ID && key.Public.Algorithm == private.Public().Algorithm {
			key.Private = private
		}
	}
}

// postpone gives a key that was stored but never came into the public record, because
// the manager ended in between, its whole time of publication. It would otherwise
// sign before verifiers know it.
func postpone(ring, public *keyring.Ring, now time.Time, publishBefore time.Duration) {
	for i := range ring.Keys {
		key := &ring.Keys[i]
		if key.State == keyring.Published && !holds(public, key.Public.ID) {
			key.PublishedAt, key.ActiveFrom = now, now.Add(publishBefore)
		}
	}
}

func holds(ring *keyring.Ring, id string) bool {
	if ring == nil {
		return false
	}
	for _, key := range ring.Keys {
		if key.Public.ID == id {
			return true
		}
	}
	return false
}
