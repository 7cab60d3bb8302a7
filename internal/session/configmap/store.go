// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"errors"

	"github.com/tokenward/tokenward/internal/session"
)

// Store is one instance of a policy's store.
type Store struct {
	Config
}

var _ session.Store = (*Store)(nil)
var errUnavailable = errors.New("session store is not connected")

// New opens a store; Close ends it.
func New(config Config) (*Store, error) {
	config, err := config.complete()
	return &Store{config}, err
}

func (s *Store) Close() error                                  { return nil }
func (s *Store) Create(context.Context, session.Session) error { return errUnavailable }
func (s *Store) Load(context.Context, session.ID) (session.Session, error) {
	return session.Session{}, errUnavailable
}
func (s *Store) Swap(context.Context, session.Session) (session.Session, error) {
	return session.Session{}, errUnavailable
}
func (s *Store) Revocations(context.Context, session.Cursor) (<-chan session.Event, error) {
	return nil, errUnavailable
}
