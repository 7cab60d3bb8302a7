// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testenv"
)

const testNamespace = "tokenward-system"

// server is the API server that all tests of the package share.
var server *rest.Config

func TestMain(m *testing.M) {
	os.Exit(func() int {
		env, err := testenv.New(testenv.Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = env.Stop() }()
		server = env.Config
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: testNamespace}}
		c, err := client.New(server, client.Options{})
		if err == nil {
			err = c.Create(context.Background(), namespace)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func newClient(tb testing.TB) client.WithWatch {
	tb.Helper()
	c, err := NewClient(server)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

var testKeys = AddSealingKey(nil)

func newTestSealer(tb testing.TB) *Sealer {
	tb.Helper()
	sealer, err := NewSealer(testKeys)
	if err != nil {
		tb.Fatal(err)
	}
	return sealer
}

// testConfig is of a policy of its own.
func testConfig(tb testing.TB) Config {
	tb.Helper()
	return Config{
		Client: newClient(tb), Namespace: testNamespace, Sealer: newTestSealer(tb),
		Policy: storetest.NewPolicyID(), OwnerNamespace: "shop", OwnerName: "shop",
		Shards: 4, MaxSessions: 10000,
	}
}

func open(tb testing.TB, config Config) *Store {
	tb.Helper()
	store, err := New(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return store
}

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Backend{
		Open: func(tb testing.TB, o storetest.Options) session.Store {
			tb.Helper()
			config := testConfig(tb)
			config.Policy, config.MaxSessions, config.Now = o.Policy, o.MaxSessions, o.Now
			// The suite's many small writes need not be spared; what paces them is tested
			// by itself.
			config.WritesPerSecond = 1000
			return open(tb, config)
		},
	})
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
func createSession(tb testing.TB, store *Store) session.Session {
	tb.Helper()
	created := newSession(store.config.Policy, store.config.Now())
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
	return session.Decide(from, session.Presented{Generation: from.Generation, TokenID: from.Current.ID, ExpiresAt: from.Current.ExpiresAt}, now, testPolicy, session.NewTokenID()).Next
}
