// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawText is any text without the empty string.
var drawText = rapid.StringN(1, 20, 60)

// drawValue is any JSON value in the form of Claims.Extra.
func drawValue(depth int) *rapid.Generator[any] {
	options := []*rapid.Generator[any]{
		rapid.String().AsAny(), rapid.Bool().AsAny(), rapid.Just[any](nil),
		rapid.Map(rapid.Int64(), func(n int64) any { b, _ := json.Marshal(n); return json.Number(b) }),
		rapid.Map(rapid.Float64(), func(n float64) any { b, _ := json.Marshal(n); return json.Number(b) }),
	}
	if depth > 0 {
		inner := rapid.Deferred(func() *rapid.Generator[any] { return drawValue(depth - 1) })
		options = append(options,
			rapid.Map(rapid.SliceOfN(inner, 0, 3), func(l []any) any { return append([]any{}, l...) }),
			rapid.Map(rapid.MapOfN(drawText, inner, 0, 3), func(m map[string]any) any { return m }),
		)
	}
	return rapid.OneOf(options...)
}

func drawClaims(t *rapid.T) Claims {
	c := Claims{
		Issuer: drawText.Draw(t, "iss"), Subject: drawText.Draw(t, "sub"), Audience: rapid.SliceOfN(drawText, 1, 3).Draw(t, "aud"),
		ExpiresAt: time.Unix(rapid.Int64Range(0, maxDate).Draw(t, "exp"), 0).UTC(),
		IssuedAt:  time.Unix(rapid.Int64Range(0, maxDate).Draw(t, "iat"), 0).UTC(),
		ID:        drawText.Draw(t, "jti"), SessionID: drawText.Draw(t, "sid"), ClientID: drawText.Draw(t, "client_id"),
		Generation: rapid.Int64Range(0, maxGeneration).Draw(t, "gen"),
	}
	if rapid.Bool().Draw(t, "has nbf") {
		c.NotBefore = time.Unix(rapid.Int64Range(0, maxDate).Draw(t, "nbf"), 0).UTC()
	}
	extra := rapid.MapOfN(drawText.Filter(func(s string) bool { return !resemblesRegistered(s) }), drawValue(2), 0, 4).Draw(t, "extra")
	if len(extra) > 0 {
		c.Extra = extra
	}
	return c
}

func TestWhatIsSignedIsReadBackTheSame(t *testing.T) {
	for _, alg := range Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			key := keyFor(t, alg)
			base := verifierFor(t, key)
			rapid.Check(t, func(t *rapid.T) {
				claims := drawClaims(t)
				raw, err := key.Sign(claims)
				if err != nil {
					t.Fatalf("sign: %v", err)
				}
				at := claims.IssuedAt
				if claims.NotBefore.After(at) {
					at = claims.NotBefore
				}
				v := Verifier{Keys: base.Keys, Issuer: claims.Issuer, Audiences: claims.Audience[:1]}
				got, err := v.VerifyForRefresh(raw, at)
				if err != nil {
					t.Fatalf("verify: %v", err)
				}
				if !reflect.DeepEqual(*got, claims) {
					t.Fatalf("read\n%#v, signed\n%#v", *got, claims)
				}
				if _, err := v.Verify(raw, at); (err == nil) != at.Before(claims.ExpiresAt) {
					t.Fatalf("exp %v at %v: %v", claims.ExpiresAt, at, err)
				}
				if id, ok := KeyID(raw); !ok || id != key.Public().ID {
					t.Fatalf("kid is %q, %v", id, ok)
				}
			})
		})
	}
}

// canonical encodes the three parts again.
func canonical(t rapid.TB, raw string) string {
	parts := strings.Split(raw, ".")
	for i, part := range parts {
		decoded, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			t.Fatalf("an accepted token is not base64url: %v", err)
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(decoded)
	}
	return strings.Join(parts, ".")
}

func TestNoOtherSpellingOfATokenIsAccepted(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256, RS256, PS256} {
		t.Run(string(alg), func(t *testing.T) {
			key := keyFor(t, alg)
			v := verifierFor(t, key)
			raw := mustSign(t, key, goodClaims())
			rapid.Check(t, func(t *rapid.T) {
				at := rapid.IntRange(0, len(raw)).Draw(t, "at")
				to := rapid.IntRange(at, min(len(raw), at+2)).Draw(t, "to")
				with := rapid.OneOf(
					rapid.SampledFrom([]string{"", "=", "==", "\r", "\n", "\r\n", " ", "\t", ".", "\x00", "+", "/", "%2e", "A", "\u00a0"}),
					rapid.StringN(0, 3, 8),
				).Draw(t, "with")
				changed := raw[:at] + with + raw[to:]
				_, err := v.Verify(changed, now)
				if (err == nil) != (changed == raw) {
					t.Fatalf("changed=%v: %v", changed != raw, err)
				}
				if err == nil && canonical(t, changed) != changed {
					t.Fatal("accepted, and not canonical")
				}
			})
		})
	}
}

func TestNoChangedBitIsAccepted(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256, RS256, PS256} {
		t.Run(string(alg), func(t *testing.T) {
			key := keyFor(t, alg)
			v := verifierFor(t, key)
			raw := mustSign(t, key, goodClaims())
			for i := range len(raw) {
				for bit := range 8 {
					changed := []byte(raw)
					changed[i] ^= 1 << bit
					if _, err := v.VerifyForRefresh(string(changed), now); err == nil {
						t.Fatalf("accepted with bit %d of byte %d changed", bit, i)
					}
				}
			}
			for i := range len(raw) {
				if _, err := v.Verify(raw[:i], now); err == nil {
					t.Fatalf("accepted when cut to %d bytes", i)
				}
			}
		})
	}
}

func TestSameClaimsGiveTheSameBytes(t *testing.T) {
	for _, alg := range Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			key := keyFor(t, alg)
			der, err := key.PKCS8()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParsePKCS8(alg, der)
			if err != nil {
				t.Fatal(err)
			}
			claims := goodClaims()
			claims.Extra = map[string]any{"z": "1", "a": []any{"<&>", "\u2028"}, "m": map[string]any{"y": true, "b": json.Number("1.50")}}
			stored, err := EncodeExtra(claims.Extra)
			if err != nil {
				t.Fatal(err)
			}
			replay := claims
			if replay.Extra, err = DecodeExtra(stored); err != nil {
				t.Fatal(err)
			}
			replay.ExpiresAt = replay.ExpiresAt.Add(time.Millisecond) // below what a token holds
			first, second := mustSign(t, key, claims), mustSign(t, again, replay)
			if strings.HasPrefix(string(alg), "PS") {
				// The salt is random; what is signed must still be the same.
				first, second = first[:strings.LastIndex(first, ".")], second[:strings.LastIndex(second, ".")]
			}
			if first != second {
				t.Errorf("%s\n%s", first, second)
			}
		})
	}
}

// Whatever our reader takes, encoding/json takes too and understands the same.
func TestTheJSONReaderAgreesWithEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in string
		if rapid.Bool().Draw(t, "well formed") {
			data, err := json.Marshal(rapid.MapOfN(rapid.String(), drawValue(3), 0, 4).Draw(t, "object"))
			if err != nil {
				t.Skip(err)
			}
			in = string(data)
		} else {
			in = strings.Join(rapid.SliceOfN(rapid.SampledFrom(
				[]string{"{", "}", "[", "]", ",", ":", `"`, `"a"`, `"b"`, "1", "-0", "0.5e+1", "01", "true", "null", " ", "\n", `"\u00e9"`, `"\ud83d\ude00"`, "\x00"},
			), 0, 12).Draw(t, "pieces"), "")
		}
		compareWithEncodingJSON(t, in)
	})
}

func compareWithEncodingJSON(t rapid.TB, in string) {
	got, err := DecodeExtra([]byte(in))
	if err != nil {
		return
	}
	var want map[string]any
	decoder := json.NewDecoder(bytes.NewReader([]byte(in)))
	decoder.UseNumber()
	if err := decoder.Decode(&want); err != nil {
		t.Fatalf("%q is taken, encoding/json says %v", in, err)
	}
	if len(want) == 0 && len(got) == 0 {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q is read as %v, by encoding/json as %v", in, got, want)
	}
}

func TestWellFormedJSONIsNeverRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.MapOfN(rapid.String(), drawValue(3), 0, 5).Draw(t, "object")
		data, err := EncodeExtra(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeExtra(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if !slices.Equal(slices.Sorted(maps.Keys(in)), slices.Sorted(maps.Keys(got))) {
			t.Fatalf("wrote %v, read %v", in, got)
		}
	})
}
