// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/tokenward/tokenward/issuer/exchange"
	"github.com/tokenward/tokenward/issuer/refusal"
)

// Registry holds the snapshots in force. The zero value is ready to use.
type Registry struct {
	mu      sync.RWMutex
	entries map[types.NamespacedName]entry
}

// entry is a snapshot, or why there is none.
type entry struct {
	policy  *exchange.Policy
	refused *refusal.Error
	// keys are the last that were in force, also while the policy is refused: a ring
	// that comes back from a backup must not fall behind them.
	keys exchange.Keys
}

// Policy finds the snapshot of a policy. Its errors are *refusal.Error.
func (r *Registry) Policy(namespace, name string) (*exchange.Policy, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.entries[types.NamespacedName{Namespace: namespace, Name: name}]
	switch {
	case !ok:
		// It may be new, and this replica a moment behind.
		return nil, refusal.Unavailable("the issuer does not know this TokenPolicy", nil)
	case e.refused != nil:
		return nil, e.refused
	}
	return e.policy, nil
}

// Known says whether a policy was looked at, servable or not.
func (r *Registry) Known(key types.NamespacedName) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.entries[key]
	return ok
}

// serves says whether there is a snapshot of this very policy, and not of a namesake.
func (r *Registry) serves(key types.NamespacedName, uid types.UID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.entries[key].policy
	return p != nil && string(p.UID) == string(uid)
}

func (r *Registry) set(key types.NamespacedName, e entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries == nil {
		r.entries = map[types.NamespacedName]entry{}
	}
	e.keys = r.entries[key].keys
	if e.policy != nil {
		e.keys = e.policy.Keys
	}
	r.entries[key] = e
}

// keys are those of the last snapshot that was served, which a set of the same owner must not fall behind.
func (r *Registry) keys(key types.NamespacedName) exchange.Keys {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.entries[key].keys
}

func (r *Registry) remove(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.entries, key)
}
