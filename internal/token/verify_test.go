// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"strings"
	"sync"
	"testing"
	"time"
)

func TestVerifyTakesATokenThatItMinted(t *testing.T) {
	for _, alg := range Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			key := keyFor(t, alg)
			claims, err := verifierFor(t, key).Verify(mustSign(t, key, goodClaims()), now)
			if err != nil {
				t.Fatal(err)
			}
			if claims.Subject != "alice" || claims.Generation != 3 || !claims.ExpiresAt.Equal(now.Add(5*time.Minute)) {
				t.Errorf("read %+v", claims)
			}
		})
	}
}

// payload is what goodClaims look like, before a case spoils it.
const payload = `{"iss":"https://shop.example.com","sub":"alice","aud":["shop-api"],"exp":1773501266,` +
	`"iat":1773500966,"jti":"j","sid":"s","client_id":"shop/shop","gen":0}`

func TestPayloadIsRefusedAlthoughTheSignatureIsGood(t *testing.T) {
	key := keyFor(t, ES256)
	v := verifierFor(t, key)
	if _, err := v.Verify(forge(t, key, headerOf(key), payload), now); err != nil {
		t.Fatalf("the payload that the cases start from is refused: %v", err)
	}
	with := func(more string) string { return strings.TrimSuffix(payload, "}") + "," + more + "}" }
	swap := func(old, with string) string {
		if !strings.Contains(payload, old) {
			t.Fatalf("the payload has no %s", old)
		}
		return strings.Replace(payload, old, with, 1)
	}
	cases := map[string]struct {
		payload string
		want    Reason
	}{
		"a claim occurs twice":                          {with(`"sub":"mallory"`), TokenMalformed},
		"a claim occurs twice, once with escapes":       {with(`"\u0073ub":"mallory"`), TokenMalformed},
		"an unknown claim occurs twice":                 {with(`"role":"user","role":"admin"`), TokenMalformed},
		"a name occurs twice inside a claim":            {with(`"x":{"a":1,"a":2}`), TokenMalformed},
		"a name occurs twice inside a list in a claim":  {with(`"x":[{"a":1,"a":2}]`), TokenMalformed},
		"a name occurs twice among many":                {with(`"x":{` + manyNames(40) + `,"n` + strings.Repeat("7", 30) + `":1}`), TokenMalformed},
		"a registered claim in upper case":              {with(`"SUB":"mallory"`), TokenMalformed},
		"a registered claim with a long s":              {with(`"ſub":"mallory"`), TokenMalformed},
		"sub is a number":                               {swap(`"alice"`, `7`), TokenMalformed},
		"sub is null":                                   {swap(`"alice"`, `null`), TokenMalformed},
		"sub is a list":                                 {swap(`"alice"`, `["alice"]`), TokenMalformed},
		"sub is empty":                                  {swap(`"alice"`, `""`), ClaimMissing},
		"sub is missing":                                {swap(`"sub":"alice",`, ``), ClaimMissing},
		"iss is missing":                                {swap(`"iss":"https://shop.example.com",`, ``), ClaimMissing},
		"aud is missing":                                {swap(`"aud":["shop-api"],`, ``), ClaimMissing},
		"aud is an empty list":                          {swap(`["shop-api"]`, `[]`), ClaimMissing},
		"aud holds a number":                            {swap(`["shop-api"]`, `["shop-api",7]`), TokenMalformed},
		"aud is an object":                              {swap(`["shop-api"]`, `{"shop-api":true}`), TokenMalformed},
		"exp is missing":                                {swap(`"exp":1773501266,`, ``), ClaimMissing},
		"exp is a string":                               {swap(`1773501266`, `"1773501266"`), TokenMalformed},
		"exp is null":                                   {swap(`1773501266`, `null`), TokenMalformed},
		"exp has an exponent":                           {swap(`1773501266`, `1.773501266e9`), TokenMalformed},
		"exp is beyond the year 9999":                   {swap(`1773501266`, `253402300800`), TokenMalformed},
		"exp overflows":                                 {swap(`1773501266`, `99999999999999999999`), TokenMalformed},
		"exp is negative":                               {swap(`1773501266`, `-1773501266`), TokenMalformed},
		"exp has more places than a clock":              {swap(`1773501266`, `1773501266.0123456789`), TokenMalformed},
		"exp has a leading zero":                        {swap(`1773501266`, `01773501266`), TokenMalformed},
		"exp is a bare fraction":                        {swap(`1773501266`, `.5`), TokenMalformed},
		"exp is true":                                   {swap(`1773501266`, `true`), TokenMalformed},
		"iat is missing":                                {swap(`"iat":1773500966,`, ``), ClaimMissing},
		"jti is missing":                                {swap(`"jti":"j",`, ``), ClaimMissing},
		"sid is missing":                                {swap(`"sid":"s",`, ``), ClaimMissing},
		"client_id is missing":                          {swap(`"client_id":"shop/shop",`, ``), ClaimMissing},
		"gen is missing":                                {swap(`,"gen":0`, ``), ClaimMissing},
		"gen is a string":                               {swap(`"gen":0`, `"gen":"0"`), TokenMalformed},
		"gen has a fraction":                            {swap(`"gen":0`, `"gen":0.0`), TokenMalformed},
		"gen is negative":                               {swap(`"gen":0`, `"gen":-1`), TokenMalformed},
		"gen is larger than every reader takes exactly": {swap(`"gen":0`, `"gen":9007199254740993`), TokenMalformed},
		"another issuer":                                {swap(`shop.example.com`, `evil.example.com`), IssuerNotTrusted},
		"the issuer with a slash at the end":            {swap(`shop.example.com`, `shop.example.com/`), IssuerNotTrusted},
		"another audience":                              {swap(`"shop-api"`, `"shop-api2"`), AudienceMismatch},
		"nbf lies ahead":                                {with(`"nbf":1773501000`), TokenNotYetValid},
		"nbf is a string":                               {with(`"nbf":"0"`), TokenMalformed},
		"iat lies ahead":                                {swap(`"iat":1773500966`, `"iat":1773501000`), TokenNotYetValid},
		"it is a list":                                  {`[]`, TokenMalformed},
		"it is a string":                                {`"x"`, TokenMalformed},
		"something follows it":                          {payload + `{}`, TokenMalformed},
		"a comma too many":                              {with(``), TokenMalformed},
		"a control character in a string":               {swap(`alice`, "al\nice"), TokenMalformed},
		"a string that is not UTF-8":                    {swap(`alice`, "al\xffice"), TokenMalformed},
		"a string with half a surrogate pair":           {swap(`alice`, `\ud800`), TokenMalformed},
		"a string with two high surrogates":             {swap(`alice`, `\ud800\ud800`), TokenMalformed},
		"a string with a bad escape":                    {swap(`alice`, `\x61`), TokenMalformed},
		"a string with a signed escape":                 {swap(`alice`, `\u+061`), TokenMalformed},
		"a string that ends in an escape":               {`{"sub":"\`, TokenMalformed},
		"a name without quotes":                         {`{sub:"alice"}`, TokenMalformed},
		"a byte order mark":                             {"\ufeff" + payload, TokenMalformed},
		"nested beyond the bound":                       {with(`"x":` + strings.Repeat("[", 16) + strings.Repeat("]", 16)), TokenMalformed},
		"more values than the bound":                    {with(`"x":[` + strings.Repeat("0,", 1024) + `0]`), TokenMalformed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			raw := forge(t, key, headerOf(key), c.payload)
			claims, err := v.Verify(raw, now)
			wantReason(t, err, c.want)
			if claims != nil {
				t.Error("a refused token has claims")
			}
			_, err = v.VerifyForRefresh(raw, now)
			wantReason(t, err, c.want)
		})
	}
}

func manyNames(n int) string {
	members := make([]string, n)
	for i := range members {
		members[i] = `"n` + strings.Repeat("7", i) + `":0`
	}
	return strings.Join(members, ",")
}

func TestPayloadIsAccepted(t *testing.T) {
	key := keyFor(t, ES256)
	cases := map[string]string{
		"with white space":                  strings.ReplaceAll(payload, ",", " ,\r\n\t"),
		"with one audience":                 strings.Replace(payload, `["shop-api"]`, `"shop-api"`, 1),
		"with another audience too":         strings.Replace(payload, `["shop-api"]`, `["x","shop-api"]`, 1),
		"with fractions of seconds":         strings.Replace(payload, `1773501266`, `1773501266.25`, 1),
		"with nbf within leeway":            strings.Replace(payload, `"gen"`, `"nbf":1773500996,"gen"`, 1),
		"with iat within leeway":            strings.Replace(payload, `1773500966`, `1773500996`, 1),
		"with escapes":                      strings.Replace(payload, `alice`, `\u0061lice\ud83d\ude00`, 1),
		"with many lists beside each other": strings.Replace(payload, `"gen"`, `"x":[`+strings.Repeat("[],{},", 30)+`1],"gen"`, 1),
		"with claims of all kinds":          strings.Replace(payload, `"gen"`, `"x":[1,-2.5e+3,true,null,{"a":[]}],"gen"`, 1),
	}
	for name, payload := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := verifierFor(t, key).Verify(forge(t, key, headerOf(key), payload), now); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExpiryIsJudgedLastAndWithLeeway(t *testing.T) {
	key, other := keyFor(t, ES256), keyFor(t, EdDSA)
	v := verifierFor(t, key)
	good := goodClaims()
	raw := mustSign(t, key, good)
	end := good.ExpiresAt.Add(v.Leeway)

	for _, c := range []struct {
		name string
		at   time.Time
		ok   bool
	}{
		{"before exp", good.ExpiresAt.Add(-time.Second), true},
		{"at exp, within leeway", good.ExpiresAt, true},
		{"just before the leeway ends", end.Add(-time.Nanosecond), true},
		{"when the leeway ends", end, false},
		{"a year later", end.AddDate(1, 0, 0), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := v.Verify(raw, c.at)
			if c.ok != (err == nil) {
				t.Fatalf("got %v", err)
			}
			if !c.ok {
				wantReason(t, err, TokenExpired)
			}
			claims, err := v.VerifyForRefresh(raw, c.at)
			if err != nil || v.Expired(claims, c.at) == c.ok {
				t.Errorf("for a refresh: %v, expired=%v", err, v.Expired(claims, c.at))
			}
		})
	}

	late := end.Add(time.Hour)
	spoil := func(change func(*Claims)) string {
		claims := goodClaims()
		change(&claims)
		return mustSign(t, key, claims)
	}
	for name, c := range map[string]struct {
		raw  string
		want Reason
	}{
		"expired and the signature is wrong (CVE-2024-51744)": {raw[:len(raw)-8] + "AAAAAAAA", SignatureInvalid},
		"expired and the key is unknown":                      {mustSign(t, other, good), KeyUnknown},
		"expired and the issuer is wrong":                     {spoil(func(c *Claims) { c.Issuer = "https://evil.example.com" }), IssuerNotTrusted},
		"expired and the audience is wrong":                   {spoil(func(c *Claims) { c.Audience = []string{"x"} }), AudienceMismatch},
		"expired and nbf lies ahead":                          {spoil(func(c *Claims) { c.NotBefore = late.Add(time.Hour) }), TokenNotYetValid},
		"expired and iat lies ahead":                          {spoil(func(c *Claims) { c.IssuedAt = late.Add(time.Hour) }), TokenNotYetValid},
		"expired and typ is wrong":                            {forge(t, key, strings.Replace(headerOf(key), "at+jwt", "JWT", 1), payload), TokenMalformed},
		"expired and a claim is missing":                      {forge(t, key, headerOf(key), strings.Replace(payload, `"jti":"j",`, "", 1)), ClaimMissing},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Verify(c.raw, late)
			wantReason(t, err, c.want)
			_, err = v.VerifyForRefresh(c.raw, late)
			wantReason(t, err, c.want)
		})
	}
}

func TestOneVerifierServesManyAtOnce(t *testing.T) {
	key := keyFor(t, EdDSA)
	v := verifierFor(t, key)
	good, bad := mustSign(t, key, goodClaims()), forge(t, key, headerOf(key), `{"sub":1}`)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				if claims, err := v.Verify(good, now); err != nil || claims.Subject != "alice" {
					t.Errorf("got %v, %v", claims, err)
				}
				if _, err := v.Verify(bad, now); err == nil {
					t.Error("accepted")
				}
			}
		})
	}
	group.Wait()
}
