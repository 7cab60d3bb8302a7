// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	goredis "github.com/redis/go-redis/v9"
)

// Check reports what keeps the store from working or from being safe: a server that
// is away, credentials or certificates that are wrong, rights that are missing, a
// mode that does not fit, a server that evicts. The error is an [*Error], or the
// context's.
func (s *Store) Check(ctx context.Context) error {
	_, err := do(ctx, s, "check the session store", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.check(ctx)
	})
	return err
}

func (s *Store) check(ctx context.Context) error {
	if err := s.eachPrimary(ctx, s.checkServer); err != nil {
		return err
	}
	keys := []string{s.scope() + "check", s.scope() + "check-stream", s.scope() + "check-index"}
	if err := s.scripts.check.Run(ctx, s.client, keys).Err(); err != nil {
		return err
	}
	// The command that waits is the one that no script can do.
	err := s.client.XRead(ctx, &goredis.XReadArgs{Streams: []string{keys[1], "0-0"}, Count: 1, Block: -1}).Err()
	if errors.Is(err, goredis.Nil) {
		return nil
	}
	return err
}

// eachPrimary asks every server that may hold a session: on a Cluster another node
// may take over the slot at any time.
func (s *Store) eachPrimary(ctx context.Context, ask func(context.Context, *goredis.Client) error) error {
	switch client := s.client.(type) {
	case *goredis.ClusterClient:
		var mu sync.Mutex
		var first error
		err := client.ForEachMaster(ctx, func(ctx context.Context, node *goredis.Client) error {
			err := ask(ctx, node)
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
			return nil
		})
		if first != nil {
			return first
		}
		return err
	case *goredis.Client:
		return ask(ctx, client)
	}
	return fmt.Errorf("unknown client %T", s.client)
}

func (s *Store) checkServer(ctx context.Context, server *goredis.Client) error {
	answer, err := server.Info(ctx).Result()
	if err != nil {
		return err
	}
	info := parseInfo(answer)
	mode, cluster := info["redis_mode"], s.options.Mode == ModeCluster
	switch {
	case mode == "sentinel":
		return &Error{Problem: ProblemMode, text: "the server is a Sentinel: set mode " + string(ModeSentinel)}
	case mode == "cluster" && !cluster:
		return &Error{Problem: ProblemMode, text: "the server is a node of a Redis Cluster: set mode " + string(ModeCluster)}
	case mode == "standalone" && cluster:
		return &Error{Problem: ProblemMode, text: "the server is no Redis Cluster: set mode " + string(ModeSingle)}
	case info["role"] == "slave":
		return &Error{Problem: ProblemReadOnly, text: "the server is a replica: give the address of the primary, or set mode " + string(ModeSentinel)}
	}
	if policy := info["maxmemory_policy"]; policy != "noeviction" {
		return &Error{Problem: ProblemEviction, text: fmt.Sprintf(
			"the server's maxmemory-policy is %q: when its memory is full it drops sessions and their revocations; set it to noeviction", policy)}
	}
	return nil
}

// parseInfo reads the answer of INFO: lines of name:value.
func parseInfo(answer string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(answer) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found && slices.Contains([]string{"redis_mode", "role", "maxmemory_policy"}, name) {
			info[name] = value
		}
	}
	return info
}
