// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/attempts/countertest"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

// patience is how long a test waits for what a real server does in its own time.
const patience = 30 * time.Second

// testConfig is of a database of a server without TLS.
func testConfig(server *testservers.PostgresServer, database string) Config {
	return Config{URL: Secret(server.URL(database)), CA: server.CA, SweepInterval: -1}
}

func open(tb testing.TB, config Config) *Database {
	tb.Helper()
	d, err := Open(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.Close() })
	return d
}

// TestStore has each instance in a pool of its own, as if in a process of its own.
func TestStore(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	storetest.Run(t, storetest.Backend{
		Open: func(tb testing.TB, o storetest.Options) session.Store {
			tb.Helper()
			config := testConfig(server, database)
			config.MaxConns = 4
			store := open(tb, config).Store(o.Policy, StoreOptions{MaxSessions: o.MaxSessions, Now: o.Now})
			tb.Cleanup(func() { _ = store.Close() })
			return store
		},
	})
	countertest.Run(t, countertest.Backend{
		Open: func(tb testing.TB, o storetest.Options) attempts.Counter {
			tb.Helper()
			config := testConfig(server, database)
			config.MaxConns = 4
			store := open(tb, config).Store(o.Policy, StoreOptions{Now: o.Now})
			tb.Cleanup(func() { _ = store.Close() })
			return store
		},
		Kept: func(tb testing.TB, o storetest.Options) (n int) {
			tb.Helper()
			config := testConfig(server, database)
			config.Now = o.Now
			d := open(tb, config)
			if _, err := d.Sweep(tb.Context()); err != nil {
				tb.Fatal(err)
			}
			if err := d.do(tb.Context(), func(ctx context.Context, conn *pgx.Conn) error {
				return conn.QueryRow(ctx, "SELECT count(*) FROM tokenward.attempts WHERE policy = $1", string(o.Policy)).Scan(&n)
			}); err != nil {
				tb.Fatal(err)
			}
			return n
		},
	})
}

// TestStoreOfASharedPool is the way an issuer has it, with the rights that the page says.
func TestStoreOfASharedPool(t *testing.T) {
	server := testservers.Postgres(t)
	database := server.Database(t)
	server.Exec(t, database, "CREATE ROLE tokenward LOGIN PASSWORD '"+canary+"'; CREATE SCHEMA tokenward AUTHORIZATION tokenward")
	config := testConfig(server, database)
	config.URL = Secret(server.URLFor("tokenward", canary, database))
	shared := open(t, config)
	if err := shared.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := shared.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, storetest.Backend{
		Unlimited: true,
		Open: func(tb testing.TB, o storetest.Options) session.Store {
			tb.Helper()
			store := shared.Store(o.Policy, StoreOptions{Now: o.Now})
			tb.Cleanup(func() { _ = store.Close() })
			return store
		},
	})
	countertest.Run(t, countertest.Backend{Open: func(tb testing.TB, o storetest.Options) attempts.Counter {
		tb.Helper()
		store := shared.Store(o.Policy, StoreOptions{Now: o.Now})
		tb.Cleanup(func() { _ = store.Close() })
		return store
	}})
}

var testPolicy = session.Policy{
	TTL: 5 * time.Minute, IdleTimeout: time.Hour, AbsoluteTimeout: 24 * time.Hour,
	ReuseGrace: 10 * time.Second, Leeway: 30 * time.Second,
}

func newSession(policy session.PolicyID, now time.Time) session.Session {
	s := session.New(policy, "alice@example.com", now, testPolicy, session.NewTokenID())
	s.Current.KeyID = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	s.Current.Claims = []byte(`{"role":"admin","client_id":"shop/shop"}`)
	return s
}

// create makes a session and returns it as it is stored.
func create(tb testing.TB, store *Store) session.Session {
	tb.Helper()
	created := newSession(store.policy, store.now())
	if err := store.Create(tb.Context(), created); err != nil {
		tb.Fatal(err)
	}
	return load(tb, store, created.ID)
}

func load(tb testing.TB, store *Store, id session.ID) session.Session {
	tb.Helper()
	found, err := store.Load(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

func rotate(from session.Session, now time.Time) session.Session {
	presented := session.Presented{Generation: from.Generation, TokenID: from.Current.ID, ExpiresAt: from.Current.ExpiresAt}
	next := session.Decide(from, presented, now, testPolicy, session.NewTokenID()).Next
	next.Current.KeyID, next.Current.Claims = from.Current.KeyID, from.Current.Claims
	return next
}

func revoke(tb testing.TB, store *Store, s session.Session) session.Session {
	tb.Helper()
	revoked, err := store.Swap(tb.Context(), s.Revoke(token.SessionRevoked, store.now()))
	if err != nil {
		tb.Fatal(err)
	}
	return revoked
}

// follow collects what a stream sends.
type follow struct {
	mu     sync.Mutex
	seen   map[session.ID]int
	synced bool
	cursor session.Cursor
	more   chan struct{} // takes one
}

func listen(tb testing.TB, store *Store, since session.Cursor) *follow {
	tb.Helper()
	events, err := store.Revocations(tb.Context(), since)
	if err != nil {
		tb.Fatal(err)
	}
	f := &follow{seen: map[session.ID]int{}, more: make(chan struct{}, 1)}
	go func() {
		for e := range events {
			f.mu.Lock()
			f.cursor = e.Cursor
			if e.Synced {
				f.synced = true
			} else {
				f.seen[e.ID]++
			}
			f.mu.Unlock()
			select {
			case f.more <- struct{}{}:
			default:
			}
		}
	}()
	return f
}

// until waits for a condition on what came.
func (f *follow) until(tb testing.TB, what string, condition func(f *follow) bool) {
	tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		f.mu.Lock()
		ok := condition(f)
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-f.more:
		case <-deadline.C:
			tb.Fatalf("waited in vain until %s", what)
		}
	}
}

func (f *follow) untilSynced(tb testing.TB) {
	tb.Helper()
	f.until(tb, "the stream is synced", func(f *follow) bool { return f.synced })
}

func (f *follow) untilSeen(tb testing.TB, all ...session.Session) {
	tb.Helper()
	f.until(tb, "all revocations have come", func(f *follow) bool {
		for _, s := range all {
			if f.seen[s.ID] == 0 {
				return false
			}
		}
		return true
	})
}

// eventually waits for what only asking again can tell.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			tb.Fatalf("waited in vain until %s", what)
		}
	}
}
