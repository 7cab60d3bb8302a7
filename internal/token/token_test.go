// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestErrorsHoldNoTokenMaterial(t *testing.T) {
	const canary = "canary7Qx9"
	key := keyFor(t, ES256)
	v := verifierFor(t, key)
	claims := goodClaims()
	claims.Subject, claims.ID, claims.SessionID = canary+"sub", canary+"jti", canary+"sid"
	claims.Extra = map[string]any{canary + "name": canary + "value"}
	good := mustSign(t, key, claims)
	expired := claims
	expired.ExpiresAt = now.Add(-time.Hour)
	foreign := claims
	foreign.Issuer = "https://" + canary
	audience := claims
	audience.Audience = []string{canary}

	tokens := []string{
		good + canary, canary, canary + "." + canary + "." + canary, good[:len(good)-4] + "AAAA", "." + canary,
		mustSign(t, key, expired), mustSign(t, key, foreign), mustSign(t, key, audience), mustSign(t, keyFor(t, EdDSA), claims),
		forge(t, key, `{"alg":"`+canary+`"}`, payload), forge(t, key, headerOf(key, `"crit":["`+canary+`"]`), payload),
		forge(t, key, headerOf(key), `{"`+canary+`":1,"`+canary+`":2}`), forge(t, key, headerOf(key), `{"exp":"`+canary+`"}`),
		forge(t, key, headerOf(key), `{"x":"\u`+canary+`"}`), strings.Repeat(canary, 1000),
	}
	for i, raw := range tokens {
		_, err := v.Verify(raw, now)
		if err == nil {
			t.Fatalf("token %d is accepted: it shows nothing", i)
		}
		encoded := encodeBase64([]byte(canary))
		shown := fmt.Sprintf("%v %+v %#v %q", err, err, err, err)
		if strings.Contains(shown, canary) || strings.Contains(shown, encoded[:8]) {
			t.Errorf("token %d: the error quotes it: %s", i, shown)
		}
		var refused *Error
		if !errors.As(err, &refused) || refused.Detail == "" || refused.Reason.Title() == Reason("").Title() {
			t.Errorf("token %d: %v is not an explained refusal", i, err)
		}
	}

	claims.Extra = map[string]any{"x": []any{canary, math.NaN()}}
	if _, err := key.Sign(claims); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("mint: %v", err)
	}
	if _, err := DecodeExtra([]byte(`{"` + canary + `":`)); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("decode: %v", err)
	}
}

func TestEveryReasonHasATitleOfItsOwn(t *testing.T) {
	seen := map[string]Reason{}
	for _, reason := range Reasons() {
		title := reason.Title()
		if other, ok := seen[title]; ok || title == Reason("").Title() {
			t.Errorf("%s has the title of %q", reason, other)
		}
		seen[title] = reason
	}
}

func TestReasonIsFoundInAChain(t *testing.T) {
	err := fmt.Errorf("refresh: %w", refuse(TokenReused, "x"))
	wantReason(t, err, TokenReused)
	if _, ok := ReasonOf(errors.New("x")); ok {
		t.Error("a foreign error has a reason")
	}
	if _, ok := ReasonOf(nil); ok {
		t.Error("no error has a reason")
	}
}

func TestNothingIsMintedThatNobodyWouldRead(t *testing.T) {
	key := keyFor(t, ES256)
	for name, c := range map[string]struct {
		change func(*Claims)
		want   Reason
	}{
		"no issuer":                         {func(c *Claims) { c.Issuer = "" }, ClaimMissing},
		"no subject":                        {func(c *Claims) { c.Subject = "" }, ClaimMissing},
		"no audience":                       {func(c *Claims) { c.Audience = nil }, ClaimMissing},
		"no expiry":                         {func(c *Claims) { c.ExpiresAt = time.Time{} }, ClaimMissing},
		"no time of issue":                  {func(c *Claims) { c.IssuedAt = time.Time{} }, ClaimMissing},
		"no id":                             {func(c *Claims) { c.ID = "" }, ClaimMissing},
		"no session":                        {func(c *Claims) { c.SessionID = "" }, ClaimMissing},
		"no client":                         {func(c *Claims) { c.ClientID = "" }, ClaimMissing},
		"a negative generation":             {func(c *Claims) { c.Generation = -1 }, TokenMalformed},
		"a generation that is too large":    {func(c *Claims) { c.Generation = math.MaxInt64 }, TokenMalformed},
		"an expiry before 1970":             {func(c *Claims) { c.ExpiresAt = time.Unix(-1, 0) }, TokenMalformed},
		"an expiry beyond the year 9999":    {func(c *Claims) { c.ExpiresAt = time.Unix(maxDate+1, 0) }, TokenMalformed},
		"a subject that is not UTF-8":       {func(c *Claims) { c.Subject = "\xff" }, TokenMalformed},
		"an extra claim named sub":          {func(c *Claims) { c.Extra = map[string]any{"sub": "mallory"} }, ClaimMismatch},
		"an extra claim named exp":          {func(c *Claims) { c.Extra = map[string]any{"exp": json.Number("9999999999")} }, ClaimMismatch},
		"an extra claim named nbf":          {func(c *Claims) { c.Extra = map[string]any{"nbf": json.Number("1")} }, ClaimMismatch},
		"an extra claim named Sub":          {func(c *Claims) { c.Extra = map[string]any{"Sub": "mallory"} }, TokenMalformed},
		"an extra claim with a raw twin":    {func(c *Claims) { c.Extra = map[string]any{"x": json.RawMessage(`{"a":1,"a":2}`)} }, TokenMalformed},
		"extra claims that are too large":   {func(c *Claims) { c.Extra = map[string]any{"x": strings.Repeat("x", MaxLength)} }, TokenTooLarge},
		"extra claims of too many values":   {func(c *Claims) { c.Extra = map[string]any{"x": make([]any, 2000)} }, TokenMalformed},
		"extra claims that are nested deep": {func(c *Claims) { c.Extra = nested(20) }, TokenMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			claims := goodClaims()
			c.change(&claims)
			_, err := key.Sign(claims)
			wantReason(t, err, c.want)
		})
	}
}

func nested(depth int) map[string]any {
	if depth == 0 {
		return map[string]any{}
	}
	return map[string]any{"x": nested(depth - 1)}
}

func TestClaimsAsStrings(t *testing.T) {
	claims := goodClaims()
	claims.Extra = map[string]any{
		"role": "admin", "on": true, "n": json.Number("1.50"), "roles": []any{"a", json.Number("2"), false},
		"none": nil, "object": map[string]any{}, "mixed": []any{"a", nil}, "deep": []any{[]any{"a"}}, "empty": []any{}, "blank": "",
	}
	for name, want := range map[string][]string{
		"iss": {"https://shop.example.com"}, "sub": {"alice"}, "aud": {"shop-api"}, "exp": {"1773501266"}, "iat": {"1773500966"},
		"jti": {"7f2c1c9e5b7d4a7f"}, "sid": {"b0a4c2d1e8f94f10"}, "client_id": {"shop/shop"}, "gen": {"3"},
		"role": {"admin"}, "on": {"true"}, "n": {"1.50"}, "roles": {"a", "2", "false"}, "empty": {}, "blank": {""},
	} {
		if got, ok := claims.Strings(name); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, %v", name, got, ok)
		}
	}
	for _, name := range []string{"nbf", "none", "object", "mixed", "deep", "absent", "", "SUB"} {
		if got, ok := claims.Strings(name); ok {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestKeyIDIsReadOnlyOfWhatCouldBeAToken(t *testing.T) {
	key := keyFor(t, ES256)
	good := mustSign(t, key, goodClaims())
	if id, ok := KeyID(good); !ok || id != key.Public().ID {
		t.Errorf("got %q, %v", id, ok)
	}
	for name, raw := range map[string]string{
		"nothing":            "",
		"padding":            good + "=",
		"two parts":          good[:strings.LastIndex(good, ".")],
		"an odd kid":         forge(t, key, `{"alg":"ES256","kid":"../key"}`, payload),
		"a kid of 43 spaces": forge(t, key, `{"alg":"ES256","kid":"`+strings.Repeat(" ", 43)+`"}`, payload),
		"no kid":             forge(t, key, `{"alg":"ES256"}`, payload),
		"alg none":           forge(t, key, strings.Replace(headerOf(key), "ES256", "none", 1), payload),
		"crit":               forge(t, key, headerOf(key, `"crit":["x"]`), payload),
		"a megabyte of dots": strings.Repeat(".", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			if id, ok := KeyID(raw); ok {
				t.Errorf("got %q", id)
			}
		})
	}
}
