// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
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
	// Backwards, because taking one out moves those behind it.
	for i, key := range slices.Backward(a.Keys) {
		if until, ok := key.RemoveAfter(); ok && !a.plan.Now.Before(until) {
			a.say(KeyRemoved, key.Public.ID, "key %s is removed: all its tokens are dead", key.Public.ID)
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
	if a.Version == math.MaxInt64 {
		return // nobody gets there by counting, and what follows would be older than every other
	}
	a.Version = max(a.Version+1, a.plan.Now.Unix())
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
