// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"errors"
	"slices"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// State is where a key is in its life; see the package's diagram.
type State string

// The states.
const (
	// Published: in the key set, does not sign yet.
	Published State = "Published"
	// Active: signs new tokens.
	Active State = "Active"
	// Retired: verifies what it signed; its private half is deleted.
	Retired State = "Retired"
)

// Key is one key of a ring.
type Key struct {
	Public token.PublicKey
	// Private is nil when the key is retired or comes from the public record.
	Private *token.PrivateKey
	State   State
	// Imported says that the key came from a Secret and was not generated.
	Imported bool

	// PublishedAt is when the key came into the key set.
	PublishedAt time.Time
	// ActiveFrom is when it signs, or will sign.
	ActiveFrom time.Time
	// RetiredAt is zero until the next key took over.
	RetiredAt time.Time
	// Retention is how long after RetiredAt a token of this key can still be of use: the
	// longest Plan.Retention since the key came into the ring.
	Retention time.Duration
}

// RemoveAfter is when the last token that a retired key signed is dead; false for a
// key that is not retired.
func (k Key) RemoveAfter() (time.Time, bool) {
	if k.State != Retired {
		return time.Time{}, false
	}
	return k.RetiredAt.Add(k.Retention), true
}

// RemovedKey is a key that left the ring and must not come back.
type RemovedKey struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
	// Lasting marks the ids that somebody could bring back, because the key was imported or
	// revoked. They are the last to be forgotten.
	Lasting bool `json:"lasting,omitempty"`
}

// Ring is the keys of one SigningKey. Nothing in this package changes a ring that it
// was given.
type Ring struct {
	// Owner is the UID of the SigningKey.
	Owner string
	// Version is that of the key set. It rises with each change of the public keys, to the
	// time in seconds since 1970 or by one if it is there already. So the keys of a ring that was
	// lost, or comes from a backup, still replace those that verifiers have seen since.
	Version int64
	// RotateHandled is the last request for a rotation that was acted on.
	RotateHandled string
	// RotationDeferred says that a rotation is due and waits until the ring has room.
	RotationDeferred bool
	// Removed are the last [MaxRemoved] keys that left, oldest first.
	Removed []RemovedKey
	// Keys, newest first.
	Keys []Key
}

// Bounds of a ring, so that its document stays far below the 1 MiB of a Secret.
const (
	MaxKeys    = token.MaxKeys
	MaxRemoved = 1024
)

// New is a ring without keys; [Advance] gives it the first.
func New(owner string) *Ring { return &Ring{Owner: owner} }

// Clone is a deep copy. Key material is immutable and shared.
func (r *Ring) Clone() *Ring {
	next := *r
	next.Keys = slices.Clone(r.Keys)
	next.Removed = slices.Clone(r.Removed)
	return &next
}

// Active is the key that signs; false when there is none. Its Private is nil when the
// ring comes from the public record.
func (r *Ring) Active() (Key, bool) {
	if i := r.index(Active); i >= 0 {
		return r.Keys[i], true
	}
	return Key{}, false
}

// KeySet is what verifiers need.
func (r *Ring) KeySet() (*token.KeySet, error) {
	keys := make([]token.PublicKey, 0, len(r.Keys))
	for _, key := range r.Keys {
		keys = append(keys, key.Public)
	}
	return token.NewKeySet(r.Owner, r.Version, keys)
}

// index of the first key in a state, or -1.
func (r *Ring) index(state State) int {
	return slices.IndexFunc(r.Keys, func(k Key) bool { return k.State == state })
}

func (r *Ring) has(id string) bool {
	return slices.ContainsFunc(r.Keys, func(k Key) bool { return k.Public.ID == id })
}

func (r *Ring) wasRemoved(id string) bool {
	return slices.ContainsFunc(r.Removed, func(k RemovedKey) bool { return k.ID == id })
}

// check holds a ring against what every ring must be.
func (r *Ring) check() error {
	switch {
	case r.Owner == "":
		return errors.New("the owner is empty")
	case r.Version < 0:
		return errors.New("the version is negative")
	case len(r.Keys) > MaxKeys:
		return errors.New("it has too many keys")
	case len(r.Removed) > MaxRemoved:
		return errors.New("it has too many removed keys")
	}
	count := map[State]int{}
	seen := map[string]bool{}
	for _, key := range r.Keys {
		count[key.State]++
		switch {
		case seen[key.Public.ID]:
			return errors.New("a key occurs twice")
		case key.State != Published && key.State != Active && key.State != Retired:
			return errors.New("a key has an unknown state")
		case key.State == Retired && key.Private != nil:
			return errors.New("a retired key has its private half")
		case key.Private != nil && key.Private.Public().ID != key.Public.ID:
			return errors.New("a private half belongs to another key")
		case key.Retention < 0:
			return errors.New("a retention is negative")
		}
		seen[key.Public.ID] = true
	}
	if count[Active] > 1 || count[Published] > 1 {
		return errors.New("two keys are Active, or two are Published")
	}
	return nil
}
