// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"fmt"
	"strings"
	"time"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
)

const (
	// settle is how long a login may be under way: a call of a sidecar takes 20 s at
	// most (issuer/api), and what it had begun at the store may come a little later.
	settle = 30 * time.Second
	// takeOver is how old an order is when another replica sees to it.
	takeOver = time.Minute
	// ahead is how far an administrator's clock may be before ours.
	ahead = session.MaxLeeway
	// maxSubject is the longest subject that a user source gives, in bytes.
	maxSubject = 512
	// maxValue is what of a value is in the status, in bytes (api.Revocation.Value).
	maxValue = 1024

	rfc3339Now = "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
)

// kinds of orders, in the order in which they are in the status.
var kinds = [...]struct {
	order      api.RevocationOrder
	annotation string
}{
	{api.RevokeSubject, api.RevokeSubjectAnnotation},
	{api.RevokeAll, api.RevokeAllAnnotation},
}

// instance is one order that was claimed, and tells it from all others of its policy.
type instance struct {
	order api.RevocationOrder
	value string
	at    int64 // orderTime in Unix seconds
}

func instanceOf(entry *api.Revocation) instance {
	return instance{order: entry.Order, value: entry.Value, at: entry.OrderTime.Unix()}
}

// selection is what the order ends. It is false for a value that is no order.
func (i instance) selection() (session.Selection, bool) {
	ordered := time.Unix(i.at, 0).UTC()
	if refuse(i.order, i.value, ordered) != "" {
		return session.Selection{}, false
	}
	if i.order == api.RevokeSubject {
		return session.Selection{Subject: i.value, CreatedUntil: ordered}, true
	}
	until, err := time.Parse(time.RFC3339, i.value)
	return session.Selection{AllSubjects: true, CreatedUntil: until.UTC()}, err == nil
}

// due is when a sweep is the last one: no login that began until the order's moment
// is under way any more.
func (i instance) due() time.Time {
	at := time.Unix(i.at, 0)
	if which, ok := i.selection(); ok && which.CreatedUntil.After(at) {
		at = which.CreatedUntil
	}
	return at.Add(settle)
}

// refuse says what is wrong with the value of an annotation; nothing is "".
func refuse(order api.RevocationOrder, value string, now time.Time) string {
	if order == api.RevokeSubject {
		switch {
		case value == "":
			return `Nothing was done: the value is empty. Write the subject (the claim "sub") whose sessions shall end.`
		case len(value) > maxSubject:
			return fmt.Sprintf("Nothing was done: the value has %d bytes, and no subject has more than %d.", len(value), maxSubject)
		}
		return ""
	}
	moment, err := time.Parse(time.RFC3339, value)
	switch {
	case err != nil:
		return "Nothing was done: the value is not a moment of RFC 3339, such as 2026-01-31T12:00:00Z. To end all sessions that began until now, write " + rfc3339Now + "."
	case moment.After(now.Add(ahead)):
		return "Nothing was done: the value is in the future, and what has not begun cannot be ended. To end all sessions that began until now, write " + rfc3339Now + "."
	}
	return ""
}

// beginning is what of a value goes into the status.
func beginning(value string) string {
	if len(value) <= maxValue {
		return value
	}
	return strings.ToValidUTF8(value[:maxValue], "")
}

// known is what this replica remembers of an order.
type known struct {
	// mine: this replica has claimed it.
	mine bool
	// withdrawn: the annotation was seen without the order's value since it was claimed.
	withdrawn bool
	// swept: the sessions that were there when it was claimed are revoked.
	swept bool
	// done: nothing is left to be done about it.
	done bool
	// stuck: the last sweep left nothing but records that cannot be read.
	stuck bool
	// uncounted sessions were revoked here and are not in the status yet.
	uncounted int
	// trouble is why the last sweep did not succeed; failures how many in a row, and
	// notBefore when it is tried again.
	trouble   string
	failures  int
	notBefore time.Time
	// announced: there was an Event about a delay.
	announced bool
}

// step is what is to be done about an order now.
type step int

const (
	// rest: nothing, until something changes or verdict.wait is over.
	rest step = iota
	// claim the annotation's order, or refuse it.
	claim
	// clear the status: the annotation is gone.
	clearEntry
	// sweep the sessions.
	sweep
)

type verdict struct {
	step step
	wait time.Duration
}

// decide says what to do about one kind of order, by the value of its annotation (nil:
// there is none), its entry in the status (nil: there is none), and what this replica
// remembers about that entry. It has no side effects.
func decide(wanted *string, entry *api.Revocation, k known, now time.Time) verdict {
	anew := wanted != nil && (entry == nil || k.withdrawn || beginning(*wanted) != entry.Value)
	if entry != nil && entry.State == api.RevocationInProgress && !k.done {
		of := instanceOf(entry)
		switch late := entry.OrderTime.Add(takeOver); {
		case !k.mine && now.Before(late):
			return verdict{wait: late.Sub(now)}
		case k.stuck && (wanted == nil || anew): // what cannot be read may never be
		case now.Before(k.notBefore):
			return verdict{wait: k.notBefore.Sub(now)}
		case !k.swept || !now.Before(of.due()):
			return verdict{step: sweep}
		case wanted != nil && !anew:
			return verdict{wait: of.due().Sub(now)}
		}
		// What is left of it is done from memory.
	}
	switch {
	case anew:
		return verdict{step: claim}
	case wanted == nil && entry != nil:
		return verdict{step: clearEntry}
	}
	return verdict{}
}

// claimed is the entry of a new order; before is the one that it replaces, or nil.
func claimed(order api.RevocationOrder, value string, before *api.Revocation, now time.Time) api.Revocation {
	entry := api.Revocation{Order: order, Value: beginning(value), State: api.RevocationInProgress}
	// The time tells an order from the one before that has the same value.
	at := now.UTC().Truncate(time.Second)
	if before != nil && before.Value == entry.Value && !at.After(before.OrderTime.Time) {
		at = before.OrderTime.UTC().Truncate(time.Second).Add(time.Second)
	}
	entry.OrderTime.Time = at
	if why := refuse(order, value, at); why != "" {
		entry.State, entry.Message = api.RevocationRefused, why
	}
	return entry
}
