// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

// Advance moves the keys on to what the plan wants at plan.Now. The same ring and
// plan give the same result, apart from what plan.Generate makes, and doing it twice
// changes nothing more.
//
// next is never nil and must be stored even when err is not nil: whatever needs no new key
// (a revocation above all) has been done. err is an [*ImportError], [ErrNoSource] or what
// plan.Generate returned; the events are those that next records. recheck is how long
// until something is due, at least a second; 0 when nothing will be.
func Advance(r *Ring, plan Plan) (next *Ring, events []Event, recheck time.Duration, err error) {
	plan.Now = plan.Now.Round(0).UTC() // as it comes back from the document
	a := &advance{Ring: r.Clone(), plan: plan}
	if err := a.check(); err != nil {
		return a.Ring, nil, 0, fmt.Errorf("keyring of %q: %w", r.Owner, err)
	}
	a.mendTimes()
	a.remember()
	a.revoke()
	a.retireLost()
	a.withdraw()
	a.activateDue()
	a.removeDead()
	err = errors.Join(a.ensureActive(), a.rotate())
	a.countVersion(r)
	if err != nil {
		err = fmt.Errorf("keyring of %q: %w", r.Owner, err)
	}
	return a.Ring, a.events, a.recheck(), err
}

// advance is the ring that becomes the next one.
type advance struct {
	*Ring
	plan   Plan
	events []Event
	// lost says that the ring had to be recovered.
	lost bool
}

// maxSkew is how far the clocks of two managers may differ. A time that lies further
// ahead was written by a clock that has been mended since.
const maxSkew = time.Hour

// mendTimes keeps a clock that was far ahead from holding everything up once it is
// right again. What has happened did not happen later than now. Within maxSkew times stay
// as they are: waiting longer harms nobody, and ending early would.
func (a *advance) mendTimes() {
	latest := a.plan.Now.Add(maxSkew)
	for i := range a.Keys {
		key := &a.Keys[i]
		if key.PublishedAt.After(latest) {
			key.PublishedAt = a.plan.Now
			if key.State == Published {
				key.ActiveFrom = a.plan.Now.Add(a.plan.PublishBefore)
			}
		}
		if key.State != Published && key.ActiveFrom.After(latest) {
			key.ActiveFrom = a.plan.Now
		}
		if key.State == Retired && key.RetiredAt.After(latest) {
			key.RetiredAt = a.plan.Now
		}
	}
}

// remember keeps the longest retention that a key has seen: its tokens may have been
// minted when the policies were more generous.
func (a *advance) remember() {
	for i := range a.Keys {
		a.Keys[i].Retention = max(a.Keys[i].Retention, a.plan.Retention)
	}
}

func (a *advance) revoke() {
	for _, id := range a.plan.RevokedKeyIDs {
		if i := slices.IndexFunc(a.Keys, func(k Key) bool { return k.Public.ID == id }); i >= 0 {
			a.say(KeyRevoked, id, "key %s is revoked: every token that it signed is refused from now on", id)
			a.remove(i, true)
		}
	}
}

// retireLost is for a ring whose private halves are gone. A key that was Published
// may have become Active after the public record was written, so it stays as well. An imported
// key is simply imported again.
func (a *advance) retireLost() {
	for i := range a.Keys {
		key := &a.Keys[i]
		if key.State == Retired || key.Private != nil {
			continue
		}
		a.lost = true
		if a.isImport(*key) && a.wanted(*key) {
			key.Private = a.plan.Import
		} else {
			a.say(KeyLost, key.Public.ID, "the private half of key %s is lost: what it signed still verifies, another key signs from now on", key.Public.ID)
			a.retire(key)
		}
	}
}

// withdraw takes back a key that has signed nothing and is not what the plan wants.
func (a *advance) withdraw() {
	i := a.index(Published)
	if i < 0 || a.wanted(a.Keys[i]) {
		return
	}
	a.say(KeyRemoved, a.Keys[i].Public.ID, "key %s is withdrawn before it signed anything: the spec asks for another", a.Keys[i].Public.ID)
	// Not recorded as removed: no token of this key exists, so it may come back.
	a.Keys = slices.Delete(a.Keys, i, i+1)
}

// wanted says whether a key is of the kind that the plan asks for.
func (a *advance) wanted(key Key) bool {
	switch {
	case a.plan.Import != nil:
		want := a.plan.Import.Public()
		return key.Public.ID == want.ID && key.Public.Algorithm == want.Algorithm
	case a.plan.Generate != nil:
		return !key.Imported && key.Public.Algorithm == a.plan.Algorithm
	default:
		return true
	}
}

// activateDue lets the Published key take over when its time has come, or when no other signs.
func (a *advance) activateDue() {
	i := a.index(Published)
	if i < 0 || (a.index(Active) >= 0 && a.plan.Now.Before(a.Keys[i].ActiveFrom)) {
		return
	}
	a.activate(i)
}

func (a *advance) activate(i int) {
	if old := a.index(Active); old >= 0 {
		a.retire(&a.Keys[old])
	}
	a.Keys[i].State = Active
	a.Keys[i].ActiveFrom = a.plan.Now
	a.say(KeyActivated, a.Keys[i].Public.ID, "key %s signs from now on", a.Keys[i].Public.ID)
}

func (a *advance) retire(key *Key) {
	key.State, key.RetiredAt, key.Private = Retired, a.plan.Now, nil
	if key.ActiveFrom.After(a.plan.Now) {
		key.ActiveFrom = a.plan.Now // lost while it was Published, as far as is known
	}
	until, _ := key.RemoveAfter()
	a.say(KeyRetired, key.Public.ID, "key %s no longer signs; it verifies until %s", key.Public.ID, until.Format(time.RFC3339))
}

func (a *advance) removeDead() {
	for i := len(a.Keys) - 1; i >= 0; i-- {
		if until, ok := a.Keys[i].RemoveAfter(); ok && !a.plan.Now.Before(until) {
			a.say(KeyRemoved, a.Keys[i].Public.ID, "key %s is removed: all its tokens are dead", a.Keys[i].Public.ID)
			a.remove(i, false)
		}
	}
}

// remove takes a key out and records its id.
func (a *advance) remove(i int, revoked bool) {
	key := a.Keys[i]
	a.Keys = slices.Delete(a.Keys, i, i+1)
	a.Removed = append(a.Removed, RemovedKey{ID: key.Public.ID, At: a.plan.Now, Lasting: revoked || key.Imported})
	if len(a.Removed) > MaxRemoved {
		forget := max(0, slices.IndexFunc(a.Removed, func(k RemovedKey) bool { return !k.Lasting }))
		a.Removed = slices.Delete(a.Removed, forget, forget+1)
	}
}

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

// requestID bounds what is remembered of a request, which may be an annotation of any length.
func requestID(request string) string {
	if len(request) <= 128 {
		return request
	}
	sum := sha256.Sum256([]byte(request))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// countVersion raises the version when the public keys are not what they were.
func (a *advance) countVersion(before *Ring) {
	same := len(a.Keys) == len(before.Keys)
	for _, key := range a.Keys {
		same = same && slices.ContainsFunc(before.Keys, func(k Key) bool {
			return k.Public.ID == key.Public.ID && k.Public.Algorithm == key.Public.Algorithm
		})
	}
	if same {
		return
	}
	a.Version++
	if a.lost || before.Version == 0 {
		a.Version = max(a.Version, a.plan.Now.Unix())
	}
}

// recheck is how long until something is due.
func (a *advance) recheck() time.Duration {
	var due []time.Time
	for _, key := range a.Keys {
		if until, ok := key.RemoveAfter(); ok {
			due = append(due, until)
		}
		if key.State == Published {
			due = append(due, key.ActiveFrom)
		}
	}
	if active, ok := a.Active(); ok && a.index(Published) < 0 && !a.RotationDeferred {
		if at, ok := a.publishAt(active); ok {
			due = append(due, at)
		}
	}
	if len(due) == 0 {
		return 0
	}
	return max(slices.MinFunc(due, time.Time.Compare).Sub(a.plan.Now), time.Second)
}

func (a *advance) say(what EventType, id, message string, args ...any) {
	a.events = append(a.events, Event{Type: what, KeyID: id, Message: fmt.Sprintf(message, args...)})
}
