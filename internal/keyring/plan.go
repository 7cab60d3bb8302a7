// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"errors"
	"fmt"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// Plan is what the keys should be like, at a point in time.
type Plan struct {
	// Now is the time that counts.
	Now time.Time
	// Algorithm of new keys. A change causes a rotation.
	Algorithm token.Algorithm
	// RSABits is the size of new RSA keys; a change waits for the next rotation.
	RSABits int
	// Interval is how long a generated key signs; 0 is for ever.
	Interval time.Duration
	// PublishBefore is how long a key is published before it signs.
	PublishBefore time.Duration
	// Retention is how long a token can be of use, to its user or for a refresh: the
	// largest ttl + idleTimeout + leeway of the policies that use the SigningKey.
	Retention time.Duration
	// RotateRequest asks for one rotation each time it changes; empty asks for none.
	RotateRequest string
	// RevokedKeyIDs are removed at once.
	RevokedKeyIDs []string
	// Import is the key to use; nil: keys are generated.
	Import *token.PrivateKey
	// Generate makes a key, usually [token.GenerateKey]. It is not called when Import is
	// set. Nil, when Import is nil too, says that no key can be had for now, because the
	// Secret to import from cannot be read: keys that exist go on, rotations wait.
	Generate func(alg token.Algorithm, rsaBits int) (*token.PrivateKey, error)
}

// EventType is what happened to a key.
type EventType string

// The event types.
const (
	KeyPublished EventType = "KeyPublished"
	KeyActivated EventType = "KeyActivated"
	KeyRetired   EventType = "KeyRetired"
	KeyRemoved   EventType = "KeyRemoved"
	KeyRevoked   EventType = "KeyRevoked"
	// KeyLost: the private half is gone, the key only verifies from now on.
	KeyLost EventType = "KeyLost"
	// RotationDeferred: a rotation is due and waits until the ring has room.
	RotationDeferred EventType = "RotationDeferred"
	// RotationSkipped: a rotation was asked for and there is nothing to rotate to.
	RotationSkipped EventType = "RotationSkipped"
)

// Event says what happened, once, in words for people.
type Event struct {
	Type    EventType
	KeyID   string
	Message string
}

// ErrNoSource says that a key is needed, and the plan has neither a key to import nor
// a way to generate one.
var ErrNoSource = errors.New("no key to sign with, and none can be made for now")

// ImportError is a key to import that cannot be taken. Trying again does not help:
// another key must be put into the Secret.
type ImportError struct {
	KeyID string
	// Why ends the sentence that begins with the key's id.
	Why string
}

// Error names the key, what is wrong and the remedy.
func (e *ImportError) Error() string {
	return fmt.Sprintf("imported key %s %s: put another private key into the Secret", e.KeyID, e.Why)
}
