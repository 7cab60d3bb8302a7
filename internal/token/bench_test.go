// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"testing"
)

// BenchmarkVerify measures a token that was never seen before; the second figure of
// each algorithm is the signature check alone, with the same library.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range Algorithms() {
		key := keyFor(b, alg)
		v := verifierFor(b, key)
		claims := goodClaims()
		claims.Extra = map[string]any{"role": "admin", "name": "Alice Liddell"}
		raw := mustSign(b, key, claims)
		b.Run(string(alg)+"/whole", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(raw, now); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(string(alg)+"/signature", func(b *testing.B) {
			c, err := parse(raw)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if !alg.verifySignature(c.signingString, c.signature, key.public.Key) {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	for _, alg := range Algorithms() {
		key := keyFor(b, alg)
		claims := goodClaims()
		claims.Extra = map[string]any{"role": "admin", "name": "Alice Liddell"}
		b.Run(string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := key.Sign(claims); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefuse measures what an attacker's token costs before its signature is looked at.
func BenchmarkRefuse(b *testing.B) {
	v := verifierFor(b, keyFor(b, ES256))
	for name, raw := range hostileTokens(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(raw, now); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}
