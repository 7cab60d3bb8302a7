// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// Logout ends the session of a token, expired or not, whatever its generation: who
// holds any token of a session may end it (RFC 7009 section 2.1). A session that has
// ended already is as good as one that ends now.
func (s *Service) Logout(ctx context.Context, p *Policy, raw string) error {
	claims, err := p.verify(raw, s.now(), true)
	if err != nil {
		return err
	}
	stored, err := s.load(ctx, p, claims)
	if err == nil && stored.Revoked == nil {
		// A revocation wins over whatever happens to the session meanwhile.
		err = s.swap(ctx, p, stored.Revoke(token.SessionRevoked, s.now()))
	}
	if errors.Is(err, session.ErrNotFound) {
		return nil
	}
	return err
}
