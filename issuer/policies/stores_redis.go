// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/redis"
	"github.com/tokenward/tokenward/issuer/granted"
)

func (s *stores) fromRedis(policy *api.TokenPolicy, spec *api.RedisStore) Store {
	name := ""
	if spec.SecretRef != nil {
		name = spec.SecretRef.Name
	}
	id := session.PolicyID(policy.UID)
	return grantedStore{keep(s.Live, policy.Namespace, name, s.Now, granted.Options[Sessions]{
		Serves: func(err error) bool {
			return slices.Contains([]redis.Problem{redis.ProblemEviction, redis.ProblemFull, redis.ProblemBusy}, problemOf(err))
		},
		Refused: func(err error) bool {
			return problemOf(err) == redis.ProblemCredentials || problemOf(err) == redis.ProblemTLS
		},
		Open: func(data map[string][]byte) (granted.Opened[Sessions], error) {
			way := &way{guard: s.Guard}
			options := redis.Options{
				Policy: id, Mode: redis.Mode(spec.Mode), Addresses: spec.Addresses, MasterName: spec.MasterName,
				Database: int(spec.Database), Prefix: spec.KeyPrefix, PoolSize: int(spec.MaxConnections),
				Dial: way.DialContext, Now: s.Now,
			}
			store, err := openRedis(options, data, spec)
			if err != nil {
				return granted.Opened[Sessions]{}, err
			}
			return granted.Opened[Sessions]{
				Value: store, Check: way.check(store.check),
				Close: func() { _ = store.Close() }, // the connections are given up either way
			}, nil
		},
	})}
}

func openRedis(options redis.Options, data map[string][]byte, spec *api.RedisStore) (*redisStore, error) {
	if err := options.UseSecret(data, spec.TLS != api.TLSDisable); err != nil {
		return nil, &InvalidError{InSecret: true, Text: err.Error()}
	}
	switch {
	case len(data[redis.SecretUsername]) > 0 && len(data[redis.SecretPassword]) == 0:
		return nil, &InvalidError{InSecret: true, Text: fmt.Sprintf("%s: is there without %s", redis.SecretUsername, redis.SecretPassword)}
	case spec.Mode != api.RedisSentinel && len(data[redis.SecretSentinelUsername])+len(data[redis.SecretSentinelPassword]) > 0:
		return nil, &InvalidError{InSecret: true, Text: fmt.Sprintf("%s and %s are for mode %s, the mode is %s: remove them",
			redis.SecretSentinelUsername, redis.SecretSentinelPassword, api.RedisSentinel, spec.Mode)}
	}
	store, err := redis.New(options)
	if err != nil {
		return nil, &InvalidError{Text: err.Error()}
	}
	return &redisStore{Store: store}, nil
}

func problemOf(err error) redis.Problem {
	if failed, ok := errors.AsType[*redis.Error](err); ok {
		return failed.Problem
	}
	return ""
}

// redisStore is a store that was seen to evict, or was not. While it evicts it takes no
// new sessions, because it may lose them; and a session that it does not have was
// perhaps lost, and not ended: that is an outage to its owner and no logout.
type redisStore struct {
	*redis.Store
	evicts atomic.Pointer[redis.Error]
}

// check is [redis.Store.Check].
func (s *redisStore) check(ctx context.Context) error {
	err := s.Check(ctx)
	failed, _ := errors.AsType[*redis.Error](err)
	switch {
	case err == nil:
		s.evicts.Store(nil)
	case failed != nil && failed.Problem == redis.ProblemEviction:
		s.evicts.Store(failed)
	}
	return err
}

// Create implements [session.Store].
func (s *redisStore) Create(ctx context.Context, created session.Session) error {
	if evicts := s.evicts.Load(); evicts != nil {
		return evicts
	}
	return s.Store.Create(ctx, created)
}

// Load implements [session.Store].
func (s *redisStore) Load(ctx context.Context, id session.ID) (session.Session, error) {
	found, err := s.Store.Load(ctx, id)
	return found, s.perhapsLost(err)
}

// Swap implements [session.Store].
func (s *redisStore) Swap(ctx context.Context, next session.Session) (session.Session, error) {
	stored, err := s.Store.Swap(ctx, next)
	return stored, s.perhapsLost(err)
}

func (s *redisStore) perhapsLost(err error) error {
	if evicts := s.evicts.Load(); evicts != nil && errors.Is(err, session.ErrNotFound) {
		return evicts
	}
	return err
}
