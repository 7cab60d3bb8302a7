// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
)

// linger is how long a store that was replaced stays open, for calls that are under
// way on the snapshot that has it. No call takes longer.
const linger = 30 * time.Second

// Store is a session store with an end.
type Store interface {
	session.Store
	Close() error
}

// OpenStore opens the session store of a policy, as its spec says. A *refusal.Error
// says that it cannot be opened until something that is watched changes.
type OpenStore func(ctx context.Context, policy *api.TokenPolicy) (Store, error)

// stores of the policies, one each. A store lives as long as its policy's UID and
// the settings that it was opened with.
type stores struct {
	open OpenStore

	mu      sync.Mutex
	closed  bool
	byName  map[types.NamespacedName]openStore
	leaving map[Store]*time.Timer
}

type openStore struct {
	uid   types.UID
	spec  api.ConfigMapStore
	store Store
}

func newStores(open OpenStore) *stores {
	return &stores{open: open, byName: map[types.NamespacedName]openStore{}, leaving: map[Store]*time.Timer{}}
}

var errStoresClosed = errors.New("the issuer is shutting down")

// of a policy.
func (s *stores) of(ctx context.Context, key types.NamespacedName, policy *api.TokenPolicy) (Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errStoresClosed
	}
	spec := *policy.Spec.Store.ConfigMap
	have, ok := s.byName[key]
	if ok && have.uid == policy.UID && have.spec == spec {
		return have.store, nil
	}
	store, err := s.open(ctx, policy)
	if err != nil {
		return nil, err
	}
	if ok {
		s.retire(have.store)
	}
	s.byName[key] = openStore{uid: policy.UID, spec: spec, store: store}
	return store, nil
}

// forget the store of a policy that is gone.
func (s *stores) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.byName[key]; ok {
		delete(s.byName, key)
		s.retire(have.store)
	}
}

// retire closes a store when nobody can be using it any more.
func (s *stores) retire(store Store) {
	s.leaving[store] = time.AfterFunc(linger, func() {
		s.mu.Lock()
		_, still := s.leaving[store]
		delete(s.leaving, store)
		s.mu.Unlock()
		if still {
			_ = store.Close() // nothing is left to be done about it
		}
	})
}

// close all of them, for good.
func (s *stores) close() error {
	s.mu.Lock()
	s.closed = true
	var all []Store
	for store, timer := range s.leaving {
		timer.Stop()
		all = append(all, store)
	}
	for _, have := range s.byName {
		all = append(all, have.store)
	}
	clear(s.leaving)
	clear(s.byName)
	s.mu.Unlock()
	var errs []error
	for _, store := range all {
		errs = append(errs, store.Close())
	}
	return errors.Join(errs...)
}
