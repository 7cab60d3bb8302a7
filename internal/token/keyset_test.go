// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
)

// The examples of RFC 7638 section 3.1 and RFC 8037 appendix A.3.
func TestThumbprintsAreThoseOfTheRFCs(t *testing.T) {
	for name, c := range map[string]struct{ alg, members, want string }{
		"RFC 7638": {"RS256", `"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"`, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		"RFC 8037": {"EdDSA", `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
	} {
		t.Run(name, func(t *testing.T) {
			var key PublicKey
			if err := json.Unmarshal([]byte(`{"alg":"`+c.alg+`","use":"sig","kid":"`+c.want+`",`+c.members+`}`), &key); err != nil {
				t.Fatal(err)
			}
			if key.ID != c.want {
				t.Errorf("id is %s", key.ID)
			}
		})
	}
}

func TestAKeyMustFitItsAlgorithm(t *testing.T) {
	p256, p384 := keyFor(t, ES256).public.Key, keyFor(t, ES384).public.Key
	okp, isOKP := keyFor(t, EdDSA).public.Key.(ed25519.PublicKey)
	rsaKey, isRSA := keyFor(t, RS256).public.Key.(*rsa.PublicKey)
	if !isOKP || !isRSA {
		t.Fatal("the keys are of another type")
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	long := *rsaKey
	long.N = new(big.Int).Lsh(rsaKey.N, MaxRSABits)
	long.N.SetBit(long.N, 0, 1)
	one, even := *rsaKey, *rsaKey
	one.E, even.E = 1, 65536
	for name, c := range map[string]struct {
		alg  Algorithm
		key  any
		want error
	}{
		"P-256 for ES384":        {ES384, p256, ErrWrongKeyType},
		"P-384 for ES256":        {ES256, p384, ErrWrongKeyType},
		"Ed25519 for ES256":      {ES256, okp, ErrWrongKeyType},
		"P-256 for EdDSA":        {EdDSA, p256, ErrWrongKeyType},
		"RSA for ES256":          {ES256, rsaKey, ErrWrongKeyType},
		"P-256 for RS256":        {RS256, p256, ErrWrongKeyType},
		"half an Ed25519 key":    {EdDSA, okp[:16], ErrWrongKeyType},
		"nothing":                {ES256, nil, ErrWrongKeyType},
		"a nil pointer":          {RS256, (*rsa.PublicKey)(nil), ErrWrongKeyType},
		"an unknown algorithm":   {"HS256", []byte("secret"), ErrWrongKeyType},
		"no algorithm":           {"", p256, ErrWrongKeyType},
		"RSA with 1024 bits":     {RS256, &short.PublicKey, ErrKeyTooShort},
		"RSA with too many bits": {RS256, &long, ErrKeyTooLong},
		"RSA with exponent 1":    {PS256, &one, ErrWrongKeyType},
		"RSA, an even exponent":  {PS256, &even, ErrWrongKeyType},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewPublicKey(c.alg, c.key); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func jwkMember(t *testing.T, key, name string) string {
	t.Helper()
	var members map[string]string
	if err := json.Unmarshal([]byte(key), &members); err != nil {
		t.Fatal(err)
	}
	return members[name]
}

func TestKeySetSurvivesItsJSONForm(t *testing.T) {
	var keys []PublicKey
	for _, alg := range []Algorithm{EdDSA, ES256, ES384, ES512, RS256} {
		keys = append(keys, keyFor(t, alg).Public())
	}
	set, err := NewKeySet("uid", 7, keys)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseKeySet(data)
	if err != nil {
		t.Fatal(err)
	}
	second, _ := json.Marshal(again)
	if !bytes.Equal(data, second) || again.Owner() != "uid" || again.Version() != 7 || len(again.Keys()) != len(keys) {
		t.Errorf("wrote %s, then %s", data, second)
	}
	for _, key := range keys {
		got, ok := again.Lookup(key.ID)
		if !ok || got.Algorithm != key.Algorithm || !reflect.DeepEqual(got.Key, key.Key) {
			t.Errorf("key %s is not what it was", key.ID)
		}
	}
	var jwks struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(set.JWKS(), &jwks); err != nil || len(jwks.Keys) != len(keys) || jwks.Keys[0]["kid"] != keys[0].ID || jwks.Keys[0]["use"] != "sig" {
		t.Errorf("JWKS is %s, %v", set.JWKS(), err)
	}
}

func TestAKeySetDoesNotChangeWithWhatItWasMadeOf(t *testing.T) {
	keys := []PublicKey{keyFor(t, ES256).Public()}
	set, err := NewKeySet("uid", 1, keys)
	if err != nil {
		t.Fatal(err)
	}
	id := keys[0].ID
	keys[0] = PublicKey{}
	set.Keys()[0] = PublicKey{}
	copy(set.JWKS(), "xxxxxxxx")
	if _, ok := set.Lookup(id); !ok || set.Keys()[0].ID != id || !strings.HasPrefix(string(set.JWKS()), `{"keys"`) {
		t.Error("it changed")
	}
}

func TestBrokenKeySetsAreRefused(t *testing.T) {
	jwk := func(alg Algorithm) string {
		data, err := keyFor(t, alg).Public().MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	ec, rsaKey := jwk(ES256), jwk(RS256)
	set := func(keys ...string) string {
		return `{"owner":"uid","version":1,"keys":[` + strings.Join(keys, ",") + `]}`
	}
	more := func(key, member string) string { return strings.TrimSuffix(key, "}") + "," + member + "}" }
	swap := func(key, old, with string) string {
		if !strings.Contains(key, old) {
			t.Fatalf("the key has no %s", old)
		}
		return strings.Replace(key, old, with, 1)
	}
	if _, err := ParseKeySet([]byte(set(ec, rsaKey))); err != nil {
		t.Fatalf("the set that the cases start from is refused: %v", err)
	}
	cases := map[string]string{
		"nothing":                          ``,
		"null":                             `null`,
		"a list":                           `[]`,
		"something after it":               set(ec) + "{}",
		"no owner":                         `{"version":1,"keys":[]}`,
		"an empty owner":                   `{"owner":"","version":1,"keys":[]}`,
		"no version":                       `{"owner":"uid","keys":[]}`,
		"a negative version":               `{"owner":"uid","version":-1,"keys":[]}`,
		"a version with a fraction":        `{"owner":"uid","version":1.0,"keys":[]}`,
		"a version as a string":            `{"owner":"uid","version":"1","keys":[]}`,
		"a version beyond 64 bits":         `{"owner":"uid","version":99999999999999999999,"keys":[]}`,
		"no keys":                          `{"owner":"uid","version":1}`,
		"keys that are no list":            `{"owner":"uid","version":1,"keys":{}}`,
		"a key that is no object":          set(`"x"`),
		"two owners":                       `{"owner":"a","owner":"b","version":1,"keys":[]}`,
		"one key twice":                    set(ec, ec),
		"more keys than fit":               set(strings.Split(strings.Repeat(more(swap(ec, "ES256", "XX999"), `"x1":1`)+"\n", MaxKeys+1), "\n")[:MaxKeys+1]...),
		"the private half of an EC key":    set(more(ec, `"d":"AA"`)),
		"a private member that is null":    set(more(ec, `"d":null`)),
		"a prime of an RSA key":            set(more(rsaKey, `"p":"AA"`)),
		"a shared secret":                  set(`{"kty":"oct","k":"c2VjcmV0","alg":"HS256","kid":"x","use":"sig"}`),
		"a private half under an odd alg":  set(more(swap(ec, "ES256", "XX999"), `"d":"AA"`)),
		"kid is not the thumbprint":        set(swap(ec, keyFor(t, ES256).Public().ID, strings.Repeat("A", 43))),
		"no kid":                           set(swap(ec, `"kid":`, `"kix":`)),
		"no alg":                           set(swap(ec, `"alg":`, `"alx":`)),
		"no use":                           set(swap(ec, `"use":`, `"usx":`)),
		"for encryption":                   set(swap(ec, `"sig"`, `"enc"`)),
		"key_ops beside use":               set(more(ec, `"key_ops":["sign"]`)),
		"an alg of another curve":          set(swap(ec, "ES256", "ES384")),
		"an alg of another kind":           set(swap(ec, "ES256", "RS256")),
		"another curve":                    set(swap(ec, "P-256", "P-384")),
		"a coordinate with a byte missing": set(strings.Replace(ec, `"x":"`, `"x":"AA`, 1)),
		"a point off the curve":            set(swap(ec, `"x":"`+jwkMember(t, ec, "x"), `"x":"`+strings.Repeat("A", 43))),
		"a coordinate with padding":        set(strings.Replace(ec, `","y"`, `=","y"`, 1)),
		"a coordinate with a line feed":    set(strings.Replace(ec, `"x":"`, `"x":"\n`, 1)),
		"a modulus with a leading zero":    set(strings.Replace(rsaKey, `"n":"`, `"n":"AAAA`, 1)),
		"an exponent that overflows":       set(swap(rsaKey, `"AQAB"`, `"AQABAQABAQAB"`)),
		"a member twice":                   set(more(ec, `"kty":"EC"`)),
		"too deep":                         set(more(ec, `"z":`+strings.Repeat("[", 20)+strings.Repeat("]", 20))),
		"too large":                        set(ec) + strings.Repeat(" ", maxKeySetBytes),
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseKeySet([]byte(in)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// A sidecar lives longer than the operator that started it.
func TestWhatALaterReleaseWritesIsPassedOver(t *testing.T) {
	ec, _ := keyFor(t, ES256).Public().MarshalJSON()
	known := strings.TrimSuffix(string(ec), "}") + `,"x5t#S256":"AA"}`
	set, err := ParseKeySet([]byte(`{"owner":"uid","version":1,"next":{"a":1},"keys":[` +
		`{"kty":"AKP","alg":"ML-DSA-44","use":"sig","kid":"x","pub":"AA"},` + known + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	if keys := set.Keys(); len(keys) != 1 || keys[0].ID != keyFor(t, ES256).Public().ID {
		t.Errorf("keys are %v", keys)
	}
}

func TestOnlyANewerKeySetSupersedes(t *testing.T) {
	set := func(owner string, version int64) *KeySet {
		s, err := NewKeySet(owner, version, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, c := range map[string]struct {
		next, old *KeySet
		want      bool
	}{
		"the first":                       {set("a", 1), nil, true},
		"a newer one":                     {set("a", 2), set("a", 1), true},
		"the same":                        {set("a", 2), set("a", 2), false},
		"an older one":                    {set("a", 1), set("a", 2), false},
		"an older one of another owner":   {set("b", 1), set("a", 2), true},
		"none":                            {nil, set("a", 1), false},
		"none, where there was none":      {nil, nil, false},
		"the largest version":             {set("a", 1<<62), set("a", 1<<62-1), true},
		"the same version, another owner": {set("b", 2), set("a", 2), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.next.Supersedes(c.old); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestAHandMadeKeyDoesNotGetIntoASet(t *testing.T) {
	key := keyFor(t, ES256).Public()
	for name, broken := range map[string]PublicKey{
		"with the id of another": {ID: keyFor(t, EdDSA).Public().ID, Algorithm: key.Algorithm, Key: key.Key},
		"without an id":          {Algorithm: key.Algorithm, Key: key.Key},
		"for another algorithm":  {ID: key.ID, Algorithm: RS256, Key: key.Key},
		"without a key":          {ID: key.ID, Algorithm: key.Algorithm},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewKeySet("uid", 1, []PublicKey{broken}); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestANilKeySetKnowsNoKey(t *testing.T) {
	v := &Verifier{Issuer: "https://shop.example.com", Audiences: []string{"shop-api"}}
	_, err := v.Verify(mustSign(t, keyFor(t, ES256), goodClaims()), now)
	wantReason(t, err, KeyUnknown)
}
