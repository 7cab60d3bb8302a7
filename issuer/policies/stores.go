// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/session"
)

// Sessions are all that the issuer asks of a session store.
type Sessions interface {
	session.Store
	session.Revoker
	attempts.Counter
}

// Store is the session store of a policy, with an account of how it is and an end.
type Store interface {
	Sessions
	// Look looks whether the store can be used, and opens it if its Secret has changed.
	Look(ctx context.Context) StoreLook
	// Close ends it. Calls under way are waited for.
	Close() error
}

// StoreLook is what a look at a session store has shown.
type StoreLook struct {
	// Err is why it cannot be used: [*InvalidError], [*outbound.RefusedError],
	// *redis.Error, *postgres.Error, [session.ErrFull], or an error of the API server about its Secret or,
	// for sessions in ConfigMaps, about them.
	Err error
	// Former says that calls go on with the Secret as it was before.
	Former bool
	// Unreadable says that there are records that do not open, Full that there is no
	// room for another session.
	Unreadable, Full bool
}

// OpenStore opens a session store in ConfigMaps. A *refusal.Error says that it cannot
// be opened until something that is watched changes.
type OpenStore func(ctx context.Context, policy *api.TokenPolicy) (Store, error)

// StoreOptions are what all session stores share.
type StoreOptions struct {
	// OpenConfigMaps opens those in ConfigMaps.
	OpenConfigMaps OpenStore
	// Live reads Secrets, as in [SourceOptions].
	Live client.Reader
	// Guard decides where stores may connect to.
	Guard outbound.Guard
	// Log gets what an operator must know of.
	Log logr.Logger
	Now func() time.Time
}

// errNewerRelease: the schema has a kind that this release does not know.
var errNewerRelease = errors.New("a kind of a newer release")

// stores of the policies, one each. A store lives as long as its policy's UID and
// the settings that it was opened with.
type stores struct {
	StoreOptions

	mu      sync.Mutex
	closed  bool
	byName  map[types.NamespacedName]openStore
	leaving leaving
}

// openStore has a store, or why there is none.
type openStore struct {
	uid   types.UID
	spec  api.Store
	store Store
	err   error
}

func (o openStore) isOf(policy *api.TokenPolicy) bool {
	return o.uid == policy.UID && equality.Semantic.DeepEqual(o.spec, policy.Spec.Store)
}

func newStores(options StoreOptions) *stores {
	return &stores{StoreOptions: options, byName: map[types.NamespacedName]openStore{}}
}

var errClosed = errors.New("the issuer is shutting down")

// of a policy. Only the controller calls it.
func (s *stores) of(ctx context.Context, policy *api.TokenPolicy) (Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	key := client.ObjectKeyFromObject(policy)
	have := s.byName[key]
	if have.store != nil && have.err == nil && have.isOf(policy) {
		return have.store, nil
	}
	// The new one is opened first: when that fails, the snapshot in force keeps its own.
	store, err := s.open(ctx, policy)
	if have.store != nil && (err == nil || have.uid != policy.UID) {
		s.leaving.supersede(key, have.store)
		have.store = nil
	}
	if err == nil {
		have.store = store
	}
	s.byName[key] = openStore{uid: policy.UID, spec: *policy.Spec.Store.DeepCopy(), store: have.store, err: err}
	return store, err
}

func (s *stores) open(ctx context.Context, policy *api.TokenPolicy) (Store, error) {
	switch spec := policy.Spec.Store; {
	case spec.ConfigMap != nil:
		return s.OpenConfigMaps(ctx, policy)
	case spec.Redis != nil:
		return s.fromRedis(policy, spec.Redis), nil
	case spec.Postgres != nil:
		return s.fromPostgres(policy, spec.Postgres), nil
	}
	return nil, errNewerRelease
}

// current is what there is for this very state of a policy.
func (s *stores) current(policy *api.TokenPolicy) (openStore, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.byName[client.ObjectKeyFromObject(policy)]
	return have, ok && have.isOf(policy)
}

// each open store.
func (s *stores) each(see func(types.NamespacedName, Store)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, have := range s.byName {
		if have.store != nil {
			see(key, have.store)
		}
	}
}

// forget the store of a policy that is gone.
func (s *stores) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.byName[key]; ok {
		delete(s.byName, key)
		if have.store != nil {
			s.leaving.supersede(key, have.store)
		}
	}
	s.leaving.settle(key)
}

// close all of them, for good.
func (s *stores) close() error {
	s.mu.Lock()
	s.closed = true
	for _, have := range s.byName {
		if have.store != nil {
			s.leaving.retire(have.store)
		}
	}
	clear(s.byName)
	s.mu.Unlock()
	return s.leaving.close()
}
