// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"errors"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

func TestForeignRecords(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	admin := server.Client(t)
	store := open(t, Options{Addresses: []string{server.Addr}})
	whole, err := encode(newSession(store.options.Policy, time.Now()), "v1")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		record string
		newer  bool
	}{
		"of a newer release":                   {"2 some other form", true},
		"of a newer release in a similar form": {"2" + whole[1:], true},
		"not ours":                             {"hello", false},
		"empty":                                {"", false},
		"of format 0":                          {"0" + whole[1:], false},
		"cut off in the header":                {whole[:20], false},
		"cut off in the body":                  {whole[:120], false},
	} {
		t.Run(name, func(t *testing.T) {
			foreign := newSession(store.options.Policy, time.Now())
			if err := admin.Set(t.Context(), store.key(foreign.ID), test.record, time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
			right := func(err error) bool {
				if test.newer {
					return errors.Is(err, errNewer) && outage(err)
				}
				return errors.Is(err, session.ErrNotFound)
			}
			if _, err := store.Load(t.Context(), foreign.ID); !right(err) {
				t.Errorf("load: %v", err)
			}
			if _, err := store.Swap(t.Context(), foreign); !right(err) {
				t.Errorf("swap: %v", err)
			}
			if _, err := store.Swap(t.Context(), foreign.Revoke(token.SessionRevoked, time.Now())); !right(err) {
				t.Errorf("revoke: %v", err)
			}
			if got := admin.Get(t.Context(), store.key(foreign.ID)).Val(); got != test.record {
				t.Errorf("the record is now %q", got)
			}
		})
	}
}

func TestNothingStaysForEver(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	admin := server.Client(t)
	store := open(t, Options{Addresses: []string{server.Addr}})
	live, rotated, revoked := createSession(t, store), createSession(t, store), createSession(t, store)
	rotated, err := store.Swap(t.Context(), rotate(rotated, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	if revoked, err = store.Swap(t.Context(), revoked.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Fatal(err)
	}
	// One whose tokens are dead earlier must not shorten the stream's life.
	older := newSession(store.options.Policy, time.Now().Add(-4*time.Minute))
	if err := store.Create(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	if older, err = store.Swap(t.Context(), older.Revoke(token.SessionRevoked, time.Now())); err != nil {
		t.Fatal(err)
	}
	if err := store.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	until := map[string]time.Time{
		store.key(live.ID): live.KeepUntil(), store.key(rotated.ID): rotated.KeepUntil(),
		store.key(revoked.ID): revoked.KeepUntil(), store.key(older.ID): older.KeepUntil(), store.stream(): revoked.ForgetAfter(),
		store.index(): live.ExpiresAt.Add(session.MaxLeeway), store.scope() + "check": time.Now(),
		store.scope() + "check-stream": time.Now(), store.scope() + "check-index": time.Now(),
	}
	for _, key := range admin.Keys(t.Context(), "*").Val() {
		want, known := until[key]
		left := admin.PTTL(t.Context(), key).Val()
		if off := time.Until(want) - left; !known || left <= 0 || off < -3*time.Second || off > 3*time.Second {
			t.Errorf("%s lives for %s more, it should until %s", key, left, want)
		}
	}
}

// TestRepeatedCommand sends each change twice, as the client does when the answer to
// the first was lost.
func TestRepeatedCommand(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	store := open(t, Options{Addresses: []string{server.Addr}})
	ctx := t.Context()
	s := newSession(store.options.Policy, time.Now())
	record, err := encode(s, "first")
	if err != nil {
		t.Fatal(err)
	}
	create := func() {
		t.Helper()
		got, err := store.scripts.create.Run(ctx, store.client, []string{store.key(s.ID), store.index()}, "first", record, 60000, string(s.ID), 60000).Text()
		if err != nil || got != "created" {
			t.Errorf("create: %q %v", got, err)
		}
	}
	swap := func(from, to, want string) {
		t.Helper()
		rest, err := encodeRest(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := store.scripts.swap.Run(ctx, store.client, []string{store.key(s.ID)}, recordFormat, time.Now().Unix(),
			from, to, s.KeepUntil().Unix(), s.ForgetAfter().Unix(), rest, 60000).StringSlice()
		if err != nil || got[0] != want {
			t.Errorf("swap from %q to %q: %q %v, want %s", from, to, got, err, want)
		}
	}
	create()
	create()
	swap("first", "second", "swapped")
	create() // still known by the version before
	swap("first", "second", "swapped")
	swap("second", "third", "swapped")
	swap("first", "second", "swapped") // it was, although another one followed
	swap("first", "other", "stale")
	swap("second", "other", "stale")
	if found, err := store.Load(ctx, s.ID); err != nil || found.Version != "third" {
		t.Errorf("stored is %q %v", found.Version, err)
	}
}

func TestStreamCleansItself(t *testing.T) {
	server := testservers.Redis(t, testservers.RedisOptions{})
	admin := server.Client(t)
	now := time.Now()
	store := open(t, Options{Addresses: []string{server.Addr}, Now: func() time.Time { return now }})
	revoke := func(n int) {
		for range n {
			if _, err := store.Swap(t.Context(), createSession(t, store).Revoke(token.SessionRevoked, now)); err != nil {
				t.Fatal(err)
			}
		}
	}
	length := func() int64 { return admin.XLen(t.Context(), store.stream()).Val() }
	revoke(40)
	if n := length(); n != 40 {
		t.Fatalf("%d entries of 40 that matter", n)
	}
	now = now.Add(testPolicy.TTL + 2*session.MaxLeeway + 2*time.Second)
	revoke(4)
	if n := length(); n != 4 && n != 5 {
		t.Errorf("%d entries are left, 4 matter", n)
	}
}
