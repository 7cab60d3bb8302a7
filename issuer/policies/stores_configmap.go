// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"errors"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/configmap"
)

// lookedFor is a session that there is not; looking for it reads a shard.
const lookedFor session.ID = "tokenward-check"

// ConfigMaps is a session store in ConfigMaps.
type ConfigMaps struct {
	*configmap.Store
	// Limit is how many sessions it may hold.
	Limit int
}

var _ Store = ConfigMaps{}

// Look implements [Store]. One shard stands for all: they are beside each other.
func (s ConfigMaps) Look(ctx context.Context) StoreLook {
	if _, err := s.Load(ctx, lookedFor); err != nil && !errors.Is(err, session.ErrNotFound) {
		return StoreLook{Err: err}
	}
	stats := s.Stats()
	return StoreLook{Unreadable: stats.Unreadable > 0, Full: stats.Sessions >= s.Limit}
}
