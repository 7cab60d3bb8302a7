// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"context"
	"testing"

	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/internal/users/secret"
	"github.com/tokenward/tokenward/issuer/exchange"
)

type fixedSecret map[string][]byte

func (s fixedSecret) ReadSecret(context.Context) (data map[string][]byte, version string, err error) {
	return s, "1", nil
}

// A login is its password hash; the rest must not show.
func BenchmarkLogin(b *testing.B) {
	f := newFixture(b, token.ES256, 1)
	f.store.Store = memory.New("policy-uid", memory.Options{Now: f.now})
	f.policy.Users = secret.New(secret.Options{
		Reader: fixedSecret{"alice": []byte(`{"password": "` + password.Hash("right") + `", "role": "admin"}`)},
		Hasher: password.NewPool(0, 0, nil), Now: f.now,
	})
	b.ReportAllocs()
	for b.Loop() {
		f.login(b)
	}
}

func BenchmarkRefresh(b *testing.B) {
	for _, algorithm := range []token.Algorithm{token.EdDSA, token.ES256, token.RS256} {
		b.Run(string(algorithm), func(b *testing.B) {
			f := newFixture(b, algorithm, 1)
			current := f.login(b)
			b.ReportAllocs()
			for b.Loop() {
				f.pass(ttl)
				current = f.mustRefresh(b, current.Raw)
				if current.How != exchange.Rotated {
					b.StopTimer()
					current = f.login(b) // the session came to its end
					b.StartTimer()
				}
			}
		})
	}
}
