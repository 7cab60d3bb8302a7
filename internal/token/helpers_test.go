// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// now is the time in all tests that do not say another.
var now = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

// keyFor makes one key per algorithm and test run; RSA keys take long to make.
func keyFor(tb testing.TB, alg Algorithm) *PrivateKey {
	tb.Helper()
	keyCache.Lock()
	defer keyCache.Unlock()
	if key := keyCache.keys[alg]; key != nil {
		return key
	}
	key, err := GenerateKey(alg, MinRSABits)
	if err != nil {
		tb.Fatalf("generate %s key: %v", alg, err)
	}
	keyCache.keys[alg] = key
	return key
}

var keyCache = struct {
	sync.Mutex
	keys map[Algorithm]*PrivateKey
}{keys: map[Algorithm]*PrivateKey{}}

// goodClaims are claims that verifierFor accepts at now.
func goodClaims() Claims {
	return Claims{
		Issuer: "https://shop.example.com", Subject: "alice", Audience: []string{"shop-api"},
		ExpiresAt: now.Add(5 * time.Minute), IssuedAt: now,
		ID: "7f2c1c9e5b7d4a7f", SessionID: "b0a4c2d1e8f94f10", ClientID: "shop/shop", Generation: 3,
	}
}

func verifierFor(tb testing.TB, keys ...*PrivateKey) *Verifier {
	tb.Helper()
	publics := make([]PublicKey, 0, len(keys))
	for _, key := range keys {
		publics = append(publics, key.Public())
	}
	set, err := NewKeySet("owner", 1, publics)
	if err != nil {
		tb.Fatalf("make key set: %v", err)
	}
	return &Verifier{Keys: set, Issuer: "https://shop.example.com", Audiences: []string{"shop-api"}, Leeway: 30 * time.Second}
}

func mustSign(tb testing.TB, key *PrivateKey, claims Claims) string {
	tb.Helper()
	raw, err := key.Sign(claims)
	if err != nil {
		tb.Fatalf("sign: %v", err)
	}
	return raw
}

// forge signs any header and payload, however wrong, with a real key.
func forge(tb testing.TB, key *PrivateKey, header, payload string) string {
	tb.Helper()
	signingString := encodeBase64([]byte(header)) + "." + encodeBase64([]byte(payload))
	signature, err := key.public.Algorithm.method().Sign(signingString, key.signer)
	if err != nil {
		tb.Fatalf("forge: %v", err)
	}
	return signingString + "." + encodeBase64(signature)
}

// headerOf is the right header for a key, with more members if wanted.
func headerOf(key *PrivateKey, more ...string) string {
	members := append([]string{
		`"alg":"` + string(key.Public().Algorithm) + `"`, `"kid":"` + key.Public().ID + `"`, `"typ":"at+jwt"`,
	}, more...)
	return "{" + strings.Join(members, ",") + "}"
}

func wantReason(tb testing.TB, err error, want Reason) {
	tb.Helper()
	got, ok := ReasonOf(err)
	if !ok || got != want {
		tb.Fatalf("got %v, want a refusal because of %s", err, want)
	}
}
