// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"testing"

	"github.com/tokenward/tokenward/internal/attempts"
	"github.com/tokenward/tokenward/internal/attempts/countertest"
	"github.com/tokenward/tokenward/internal/session/storetest"
)

func TestCounter(t *testing.T) {
	openOf := func(tb testing.TB, o storetest.Options) *Store {
		tb.Helper()
		config := testConfig(tb)
		config.Policy, config.MaxSessions, config.Now, config.WritesPerSecond = o.Policy, o.MaxSessions, o.Now, 1000
		return open(tb, config)
	}
	countertest.Run(t, countertest.Backend{
		Open: func(tb testing.TB, o storetest.Options) attempts.Counter {
			tb.Helper()
			return openOf(tb, o)
		},
		Kept: func(tb testing.TB, o storetest.Options) int {
			tb.Helper()
			store := openOf(tb, o)
			if err := store.awaitSync(tb.Context()); err != nil {
				tb.Fatal(err)
			}
			if err := store.Sweep(tb.Context()); err != nil {
				tb.Fatal(err)
			}
			return len(tableOf(tb, store))
		},
	})
}

// tableOf is the table as it is at the server.
func tableOf(tb testing.TB, store *Store) table {
	tb.Helper()
	c, err := store.readers[store.attemptsShard()].read(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	e := c.entries[attemptsKey]
	if e == nil || e.err != nil {
		tb.Fatalf("the table cannot be read: %+v", e)
	}
	return e.table
}
