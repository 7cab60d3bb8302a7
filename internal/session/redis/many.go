// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tokenward/tokenward/internal/session"
)

const (
	// indexPage is how many sessions one command reads.
	indexPage = 256
	// revokeAtOnce is how many one answer is awaited for. The server does them one after
	// the other and lets nobody else in between, for about a millisecond.
	revokeAtOnce = 32
	// trimPage entries of the index are looked at by one login of trimEvery. An index has
	// then about a third of dead ones, at most, while people log in.
	trimPage, trimEvery = 64, 16
)

// RevokeWhere is [session.Revoker.RevokeWhere]. It reads the index in the order of the
// IDs, which neither logins nor a failover change.
func (s *Store) RevokeWhere(ctx context.Context, which session.Selection, as session.Revocation) (revoked int, err error) {
	const what = "revoke sessions"
	newer := &session.UnreadableError{Remedy: "finish the upgrade to the release that wrote them"}
	for after := "-"; after != ""; {
		page, err := do(ctx, s, what, func(ctx context.Context) (page, error) { return s.page(ctx, after, which) })
		if err != nil {
			return revoked, err
		}
		for todo := page.chosen; len(todo) > 0; {
			batch := todo[:min(len(todo), revokeAtOnce)]
			todo = todo[len(batch):]
			n, err := s.revokeBatch(ctx, what, batch, as)
			revoked += n
			if err != nil {
				return revoked, err
			}
		}
		for _, id := range page.newer {
			newer.Add("key "+s.key(id), errNewer)
		}
		after = page.last
	}
	// A server that drops keys may have dropped what lists the sessions.
	_, err = do(ctx, s, what, func(ctx context.Context) (struct{}, error) {
		server, err := s.primary(ctx)
		if err == nil {
			err = s.checkServer(ctx, server)
		}
		return struct{}{}, err
	})
	if err == nil && newer.Records > 0 {
		err = newer
	}
	return revoked, err
}

// page is a part of the index.
type page struct {
	chosen []session.ID
	// last is the place of the last one, empty when there are no more.
	last string
	// newer are those that a later release has written, so that nobody of ours knows
	// whether they are chosen.
	newer []session.ID
}

// listed is a part of the index: at most so many IDs from a place on, in their order.
func (s *Store) listed(ctx context.Context, from string, most int) ([]string, error) {
	// ZRANGE BYLEX is of Redis 6.2, and 6.0 is to do.
	return s.client.ZRangeByLex(ctx, s.index(), &goredis.ZRangeBy{Min: from, Max: "+", Count: int64(most)}).Result()
}

func (s *Store) page(ctx context.Context, after string, which session.Selection) (page, error) {
	ids, err := s.listed(ctx, after, indexPage)
	if err != nil || len(ids) == 0 {
		return page{}, err
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = s.key(session.ID(id))
	}
	values, err := s.client.MGet(ctx, keys...).Result()
	if err != nil {
		return page{}, err
	}
	var found page
	if len(ids) == indexPage {
		found.last = "(" + ids[len(ids)-1]
	}
	now := s.options.Now()
	for i, value := range values {
		raw, there := value.(string)
		if !there {
			continue
		}
		stored, err := decode(s.options.Policy, session.ID(ids[i]), raw)
		switch {
		case errors.Is(err, errNewer):
			found.newer = append(found.newer, session.ID(ids[i]))
		case err == nil && stored.Revoked == nil && !now.After(stored.KeepUntil()) && which.Includes(stored):
			found.chosen = append(found.chosen, stored.ID)
		}
	}
	return found, nil
}

// revokeBatch returns how many of them it has revoked itself, also with an error.
func (s *Store) revokeBatch(ctx context.Context, what string, batch []session.ID, as session.Revocation) (int, error) {
	type outcome struct {
		revoked int
		err     error
	}
	// One version for all attempts: so a command that is sent again knows its own work.
	version := newVersion()
	result, err := do(ctx, s, what, func(ctx context.Context) (outcome, error) {
		answers := make([]*goredis.Cmd, len(batch))
		// Each answer has an error of its own.
		_, _ = s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for i, id := range batch {
				keys, arguments := s.revocation(id, as, version, time.Time{}, false)
				answers[i] = s.scripts.revoke.EvalSha(ctx, p, keys, arguments...)
			}
			return nil
		})
		var result outcome
		for i, answer := range answers {
			if goredis.HasErrorPrefix(answer.Err(), "NOSCRIPT") {
				keys, arguments := s.revocation(batch[i], as, version, time.Time{}, false)
				answer = s.scripts.revoke.Run(ctx, s.client, keys, arguments...)
			}
			mine, err := wroteIt(answer, version)
			if mine {
				result.revoked++
			}
			if result.err == nil {
				result.err = err
			}
		}
		return result, nil
	})
	switch {
	case err != nil:
		return 0, err
	case result.err == nil:
		return result.revoked, nil
	case ctx.Err() != nil:
		return result.revoked, ctx.Err()
	case s.ctx.Err() != nil:
		return result.revoked, errClosed
	}
	return result.revoked, fmt.Errorf("%s: %w", what, s.explain(result.err))
}

// wroteIt reports whether an answer of the script revoke is that this version revoked
// the session. One that has died meanwhile is no error.
func wroteIt(answer *goredis.Cmd, version string) (bool, error) {
	parts, err := answer.StringSlice()
	switch {
	case err != nil:
		return false, err
	case len(parts) == 2 && parts[0] == "revoked":
		fields := strings.SplitN(parts[1], " ", 3)
		return len(fields) == 3 && fields[1] == version, nil
	case len(parts) == 1 && parts[0] == "none":
		return false, nil
	}
	return false, refused(parts)
}

// primary is the server that has the policy's keys.
func (s *Store) primary(ctx context.Context) (*goredis.Client, error) {
	switch client := s.client.(type) {
	case *goredis.ClusterClient:
		return client.MasterForKey(ctx, s.index())
	case *goredis.Client:
		return client, nil
	}
	return nil, fmt.Errorf("unknown client %T", s.client)
}

// trimNowAndThen has a login of trimEvery clean a part of the index: that around its own
// ID, which is as good as any.
func (s *Store) trimNowAndThen(around session.ID) {
	if rand.N(trimEvery) != 0 || !s.trimming.TryLock() { //nolint:gosec // spreads work, hides nothing
		return
	}
	if !s.begin() {
		s.trimming.Unlock()
		return
	}
	go func() {
		defer s.running.Done()
		defer s.trimming.Unlock()
		// What fails is left to another login; Check tells why.
		_ = s.limited(func(ctx context.Context) error { return s.trim(ctx, around) })
	}()
}

// trim takes those of the index out that are gone, trimPage after a place at most. The
// sessions are keys of the script, so that a Cluster refuses it while they move to
// another node, where they would seem to be gone.
func (s *Store) trim(ctx context.Context, around session.ID) error {
	ids, err := s.listed(ctx, "("+string(around), trimPage)
	if err == nil && len(ids) < trimPage { // the first ones follow the last
		var first []string
		first, err = s.listed(ctx, "-", trimPage-len(ids))
		ids = append(ids, first...)
	}
	if err != nil || len(ids) == 0 {
		return err
	}
	keys, members := []string{s.index()}, make([]any, len(ids))
	for i, id := range ids {
		keys, members[i] = append(keys, s.key(session.ID(id))), id
	}
	return s.scripts.trim.Run(ctx, s.client, keys, members...).Err()
}
