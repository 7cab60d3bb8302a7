// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/tokenward/tokenward/internal/token"
)

// ensureActive makes a key that signs at once when there is none that could.
func (a *advance) ensureActive() error {
	if a.index(Active) >= 0 {
		return nil
	}
	key, err := a.make()
	if err != nil {
		return err
	}
	if len(a.Keys) >= MaxKeys {
		a.makeRoom()
	}
	key.ActiveFrom = a.plan.Now
	a.add(key)
	a.activate(0)
	return nil
}

// makeRoom gives up the retired key that is nearest to its end. It takes many lost
// Secrets in a row to come here, and a ring that cannot sign would be worse.
func (a *advance) makeRoom() {
	first := -1
	for i, key := range a.Keys {
		if until, ok := key.RemoveAfter(); ok {
			if first < 0 {
				first = i
			} else if known, _ := a.Keys[first].RemoveAfter(); until.Before(known) {
				first = i
			}
		}
	}
	a.say(KeyRemoved, a.Keys[first].Public.ID, "key %s is removed before its time: the ring has %d keys", a.Keys[first].Public.ID, MaxKeys)
	a.remove(first, false)
}

// rotate publishes the next key when one is due.
func (a *advance) rotate() error {
	active, ok := a.Active()
	if !ok {
		return nil // ensureActive has said why
	}
	request := requestID(a.plan.RotateRequest)
	requested := request != "" && request != a.RotateHandled
	if requested && (a.index(Published) >= 0 || a.isImport(active)) {
		a.skipRequest(request, active)
		requested = false
	}
	if a.plan.Import == nil && a.plan.Generate == nil {
		return nil // for now there is nothing to rotate to
	}
	due := a.index(Published) < 0 && (requested || !a.wanted(active) || a.intervalEnds(active))
	full := len(a.Keys) >= MaxKeys-1 // the last place is for a key that must sign at once
	if due && full && !a.RotationDeferred {
		a.say(RotationDeferred, active.Public.ID,
			"a rotation is due and waits: the ring has %d keys, the next is removed when its tokens are dead; rotate less often or shorten idleTimeout", len(a.Keys))
	}
	a.RotationDeferred = due && full
	if !due || full {
		return nil
	}
	key, err := a.make()
	if err != nil {
		return err
	}
	key.ActiveFrom = a.plan.Now.Add(a.plan.PublishBefore)
	a.add(key)
	a.say(KeyPublished, key.Public.ID, "key %s is published and signs from %s", key.Public.ID, key.ActiveFrom.Format(time.RFC3339))
	return nil
}

// skipRequest handles a request for a rotation that is under way, or impossible.
func (a *advance) skipRequest(request string, active Key) {
	a.RotateHandled = request
	if i := a.index(Published); i >= 0 {
		a.say(RotationSkipped, a.Keys[i].Public.ID, "a rotation is under way: key %s signs from %s", a.Keys[i].Public.ID, a.Keys[i].ActiveFrom.Format(time.RFC3339))
		return
	}
	a.say(RotationSkipped, active.Public.ID, "key %s is imported: put another private key into the Secret to rotate", active.Public.ID)
}

func (a *advance) isImport(key Key) bool {
	return a.plan.Import != nil && a.plan.Import.Public().ID == key.Public.ID
}

// intervalEnds is true early enough for the next key to take over when the interval is over.
func (a *advance) intervalEnds(active Key) bool {
	at, ok := a.publishAt(active)
	return ok && !a.plan.Now.Before(at)
}

func (a *advance) publishAt(active Key) (time.Time, bool) {
	if a.plan.Interval <= 0 || a.plan.Import != nil || a.plan.Generate == nil {
		return time.Time{}, false
	}
	return active.ActiveFrom.Add(a.plan.Interval - a.plan.PublishBefore), true
}

// make takes the key to import, or generates one.
func (a *advance) make() (Key, error) {
	key := Key{Private: a.plan.Import, Imported: a.plan.Import != nil, PublishedAt: a.plan.Now, Retention: max(0, a.plan.Retention), State: Published}
	if key.Imported {
		key.Public = key.Private.Public()
		return key, a.acceptable(key.Public)
	}
	if a.plan.Generate == nil {
		return Key{}, ErrNoSource
	}
	private, err := a.plan.Generate(a.plan.Algorithm, a.plan.RSABits)
	if err != nil {
		return Key{}, fmt.Errorf("generate key: %w", err)
	}
	key.Private, key.Public = private, private.Public()
	if key.Public.Algorithm != a.plan.Algorithm || a.has(key.Public.ID) || a.wasRemoved(key.Public.ID) {
		return Key{}, fmt.Errorf("generate key: key %s is not a new one for %s", key.Public.ID, a.plan.Algorithm)
	}
	return key, nil
}

// acceptable refuses to import a key that had its time.
func (a *advance) acceptable(key token.PublicKey) error {
	var why string
	switch i := slices.IndexFunc(a.Keys, func(k Key) bool { return k.Public.ID == key.ID }); {
	case key.Algorithm != a.plan.Algorithm:
		why = fmt.Sprintf("was read for %s and the spec says %s", key.Algorithm, a.plan.Algorithm)
	case slices.Contains(a.plan.RevokedKeyIDs, key.ID):
		why = "is among revokedKeyIDs"
	case a.wasRemoved(key.ID):
		why = "was removed earlier and never comes back"
	case i >= 0 && a.Keys[i].State == Retired:
		why = "was replaced earlier and signs no more"
	case i >= 0:
		why = fmt.Sprintf("is in use for %s already and cannot serve two algorithms", a.Keys[i].Public.Algorithm)
	default:
		return nil
	}
	return &ImportError{KeyID: key.ID, Why: why}
}

// add puts a new key in front. It answers every request for a rotation made so far.
func (a *advance) add(key Key) {
	a.Keys = slices.Insert(a.Keys, 0, key)
	if request := requestID(a.plan.RotateRequest); request != "" {
		a.RotateHandled = request
	}
}

// requestID bounds what is remembered of a request, which may be an annotation of any length,
// and is what the document gives back: JSON holds no broken UTF-8.
func requestID(request string) string {
	if len(request) <= 128 && utf8.ValidString(request) {
		return request
	}
	sum := sha256.Sum256([]byte(request))
	return "sha256:" + hex.EncodeToString(sum[:])
}
