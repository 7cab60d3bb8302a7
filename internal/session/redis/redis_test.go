// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/attempts/countertest"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
)

// canary is a password that must not be seen anywhere.
const canary = "c4n4ry-p4ssw0rd"

// aclUser may do what the documentation says, and nothing else.
const aclUser = "user tokenward on >" + canary + " resetkeys ~tokenward:* resetchannels -@all" +
	" +mget +get +set +pexpire +pttl +evalsha +eval +xadd +xdel +xrange +xread" +
	" +zadd +zrangebylex +zrem +info +ping"

func TestStore(t *testing.T) {
	t.Run("single, TCP", func(t *testing.T) {
		server := testservers.Redis(t, testservers.RedisOptions{})
		conform(t, Options{Addresses: []string{server.Addr}})
	})
	t.Run("single, TLS and an ACL user", func(t *testing.T) {
		server := testservers.Redis(t, testservers.RedisOptions{TLS: true, Config: []string{aclUser}})
		conform(t, Options{
			Addresses: []string{server.TLSAddr}, TLS: trust(t, server.CA),
			Credentials: Credentials{Username: "tokenward", Password: NewPassword(canary)},
		})
	})
	t.Run("Cluster", func(t *testing.T) {
		server := testservers.Redis(t, testservers.RedisOptions{Cluster: true, Config: []string{aclUser + " +cluster|slots"}})
		conform(t, Options{
			Mode: ModeCluster, Addresses: []string{server.Addr},
			Credentials: Credentials{Username: "tokenward", Password: NewPassword(canary)},
		})
	})
	t.Run("Sentinel", func(t *testing.T) {
		server := testservers.Redis(t, testservers.RedisOptions{Config: []string{aclUser}})
		sentinel := server.Sentinel(t, "sessions", "user watcher on >"+canary+"2 resetkeys &* -@all +ping +subscribe +sentinel|get-master-addr-by-name +sentinel|sentinels")
		conform(t, Options{
			Mode: ModeSentinel, MasterName: "sessions", Addresses: []string{sentinel.Addr},
			Credentials:         Credentials{Username: "tokenward", Password: NewPassword(canary)},
			SentinelCredentials: Credentials{Username: "watcher", Password: NewPassword(canary + "2")},
		})
	})
}

// conform runs the suite and asks Check besides.
func conform(t *testing.T, options Options) {
	t.Helper()
	storetest.Run(t, storetest.Backend{
		Unlimited: true, // Redis has memory instead, see TestOutOfMemory
		Open: func(tb testing.TB, o storetest.Options) session.Store {
			tb.Helper()
			mine := options
			mine.Policy, mine.Now = o.Policy, o.Now
			return open(tb, mine)
		},
	})
	countertest.Run(t, countertest.Backend{Open: func(tb testing.TB, o storetest.Options) attempts.Counter {
		tb.Helper()
		mine := options
		mine.Policy, mine.Now = o.Policy, o.Now
		return open(tb, mine)
	}})
	options.Policy = storetest.NewPolicyID()
	if err := open(t, options).Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
}

func open(tb testing.TB, options Options) *Store {
	tb.Helper()
	if options.Policy == "" {
		options.Policy = storetest.NewPolicyID()
	}
	store, err := New(options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return store
}

func trust(tb testing.TB, ca []byte) *tls.Config {
	tb.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		tb.Fatal("no certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

var testPolicy = storetest.Policy

func newSession(policy session.PolicyID, now time.Time) session.Session {
	s := session.New(policy, "alice@example.com", now, testPolicy, session.NewTokenID())
	s.Current.KeyID = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	s.Current.Claims = []byte(`{"role":"admin","client_id":"shop/shop"}`)
	return s
}

// createSession makes a session and returns it as it is stored.
func createSession(tb testing.TB, store *Store) session.Session {
	tb.Helper()
	created := newSession(store.options.Policy, store.options.Now())
	if err := store.Create(tb.Context(), created); err != nil {
		tb.Fatal(err)
	}
	found, err := store.Load(tb.Context(), created.ID)
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

func rotate(from session.Session, now time.Time) session.Session {
	next := session.Decide(from, session.Presented{Generation: from.Generation, TokenID: from.Current.ID, ExpiresAt: from.Current.ExpiresAt}, now, testPolicy, session.NewTokenID()).Next
	next.Current.KeyID = from.Current.KeyID
	next.Current.Claims = from.Current.Claims
	return next
}
