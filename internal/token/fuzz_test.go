// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzVerify holds every input against what acceptance means, with a key whose
// signatures the fuzzer can have for any header and payload.
func FuzzVerify(f *testing.F) {
	key := keyFor(f, EdDSA)
	v := verifierFor(f, key)
	f.Add(headerOf(key), payload, mustSign(f, key, goodClaims()))
	f.Add(headerOf(key, `"jwk":{"kty":"OKP"}`), `{"sub":"\ud83d\ude00","aud":["a","b"],"exp":1.5}`, "")
	f.Add(`{"alg":"none"}`, `{"SUB":"x","sub":"y"}`, "..")
	f.Add(headerOf(key, `"crit":["b64"],"b64":false`), `{"x":[[[[]]]],"y":-1e9}`, "a.b.c.")
	f.Fuzz(func(t *testing.T, header, payload, raw string) {
		for _, raw := range []string{raw, forge(t, key, header, payload)} {
			claims, err := v.VerifyForRefresh(raw, now)
			if err != nil {
				if _, ok := ReasonOf(err); !ok || claims != nil {
					t.Fatalf("%v is no refusal, or has claims", err)
				}
				continue
			}
			if canonical(t, raw) != raw || len(raw) > MaxLength {
				t.Fatal("accepted in a form that is not canonical")
			}
			if claims.Issuer != v.Issuer || claims.Subject == "" || claims.ID == "" || claims.ExpiresAt.Unix() < 0 {
				t.Fatalf("accepted with %+v", claims)
			}
			c, err := parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			compareWithEncodingJSON(t, string(c.payload))
			again, err := key.Sign(*claims)
			if reason, _ := ReasonOf(err); reason == TokenTooLarge {
				continue // an escape may be longer in our spelling
			}
			if err != nil {
				t.Fatalf("what was read cannot be minted: %v", err)
			}
			if _, err := v.VerifyForRefresh(again, now); err != nil {
				t.Fatalf("what was minted again is refused: %v", err)
			}
		}
	})
}

func FuzzParseKeySet(f *testing.F) {
	var keys []PublicKey
	for _, alg := range []Algorithm{EdDSA, ES256, RS256} {
		keys = append(keys, keyFor(f, alg).Public())
	}
	set, err := NewKeySet("uid", 7, keys)
	if err != nil {
		f.Fatal(err)
	}
	seed, _ := set.MarshalJSON()
	f.Add(seed)
	f.Add([]byte(`{"owner":"uid","version":1,"keys":[]}`))
	f.Add([]byte(`{"owner":"uid","version":1,"keys":[{"kty":"oct","k":"AA","alg":"HS256","use":"sig","kid":"x"}]}`))
	f.Add([]byte(`{"owner":"uid","version":1,"keys":[{"kty":"AKP","alg":"ML-DSA-44","use":"sig","kid":"x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := ParseKeySet(data)
		if err != nil {
			return
		}
		out, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseKeySet(out)
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		second, _ := json.Marshal(again)
		if !bytes.Equal(out, second) || again.Supersedes(set) {
			t.Fatalf("%s became %s", out, second)
		}
	})
}
