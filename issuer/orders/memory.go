// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"maps"
	"math"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// memory is what this replica has seen of the orders of all policies. It may be lost
// at any time: what must not be lost is in the status.
type memory struct {
	mu       sync.Mutex
	policies map[types.NamespacedName]*remembered
}

type remembered struct {
	uid    types.UID
	orders map[instance]known
}

// saw takes note of a version of a policy. The watch shows every one of them, so a
// value that was there for a moment only is noticed.
func (m *memory) saw(policy *api.TokenPolicy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name}
	r := m.policies[key]
	if r == nil || r.uid != policy.UID {
		if len(policy.Status.Revocations) == 0 {
			return
		}
		r = &remembered{uid: policy.UID, orders: map[instance]known{}}
		if m.policies == nil {
			m.policies = map[types.NamespacedName]*remembered{}
		}
		m.policies[key] = r
	}
	current := map[instance]bool{}
	for i := range policy.Status.Revocations {
		entry := &policy.Status.Revocations[i]
		of := instanceOf(entry)
		current[of] = true
		k := r.orders[of]
		if wanted := annotation(policy, entry.Order); wanted == nil || beginning(*wanted) != entry.Value {
			k.withdrawn = true
		}
		k.done = k.done || entry.State != api.RevocationInProgress
		r.orders[of] = k
	}
	for of, k := range r.orders {
		if k.done && !current[of] {
			delete(r.orders, of)
		}
	}
}

// all that is known about a policy's orders.
func (m *memory) all(policy *api.TokenPolicy) map[instance]known {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[instance]known{}
	if r := m.policies[types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name}]; r != nil && r.uid == policy.UID {
		maps.Copy(found, r.orders)
	}
	return found
}

// change what is known about an order.
func (m *memory) change(policy *api.TokenPolicy, of instance, change func(*known)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name}
	if m.policies == nil {
		m.policies = map[types.NamespacedName]*remembered{}
	}
	r := m.policies[key]
	if r == nil || r.uid != policy.UID {
		r = &remembered{uid: policy.UID, orders: map[instance]known{}}
		m.policies[key] = r
	}
	k := r.orders[of]
	change(&k)
	r.orders[of] = k
}

// drop an order that this replica has not claimed after all.
func (m *memory) drop(policy *api.TokenPolicy, of instance) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.policies[types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name}]; r != nil && r.uid == policy.UID {
		delete(r.orders, of)
	}
}

func (m *memory) forget(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.policies, key)
}

// annotation is the value of an order's annotation, or nil.
func annotation(policy *api.TokenPolicy, order api.RevocationOrder) *string {
	for _, kind := range kinds {
		if value, ok := policy.Annotations[kind.annotation]; ok && kind.order == order {
			return &value
		}
	}
	return nil
}

// entryOf is the entry of an order in the status, or nil.
func entryOf(policy *api.TokenPolicy, order api.RevocationOrder) *api.Revocation {
	for i := range policy.Status.Revocations {
		if policy.Status.Revocations[i].Order == order {
			return &policy.Status.Revocations[i]
		}
	}
	return nil
}

// reported is an entry with what this replica has done since.
func reported(entry api.Revocation, k known, now time.Time) api.Revocation {
	if entry.State != api.RevocationInProgress {
		return entry
	}
	of := instanceOf(&entry)
	if _, ok := of.selection(); !ok {
		entry.State, entry.Message = api.RevocationRefused, "Nothing was done: somebody has changed this entry to a value that is no order."
		return entry
	}
	entry.Sessions = int32(min(int64(entry.Sessions)+int64(k.uncounted), math.MaxInt32)) //nolint:gosec // it fits
	switch {
	case k.done:
		entry.State, entry.Message = api.RevocationCompleted, ""
		entry.CompletionTime = &metav1.Time{Time: now.UTC().Truncate(time.Second)}
	case k.trouble != "":
		entry.Message = beginning("Not all sessions are revoked yet: " + k.trouble + ". It is tried again until it is done.")
	case k.swept:
		entry.Message = "The sessions that were there are revoked. Logins that were under way are looked for once more at " + of.due().UTC().Format(time.RFC3339) + "."
	}
	return entry
}
