// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func TestHeaderIsRefusedAlthoughTheSignatureIsGood(t *testing.T) {
	key, other := keyFor(t, ES256), keyFor(t, EdDSA)
	v := verifierFor(t, key, other)
	swap := func(old, with string) string {
		if !strings.Contains(headerOf(key), old) {
			t.Fatalf("the header has no %s", old)
		}
		return strings.Replace(headerOf(key), old, with, 1)
	}
	kid := key.Public().ID
	cases := map[string]struct {
		header string
		want   Reason
	}{
		"alg none":                         {swap("ES256", "none"), AlgorithmNotAllowed},
		"alg nOnE":                         {swap("ES256", "nOnE"), AlgorithmNotAllowed},
		"alg in lower case":                {swap("ES256", "es256"), AlgorithmNotAllowed},
		"alg empty":                        {swap("ES256", ""), TokenMalformed},
		"alg missing":                      {swap(`"alg":"ES256",`, ""), TokenMalformed},
		"alg a number":                     {swap(`"ES256"`, "256"), TokenMalformed},
		"alg a list":                       {swap(`"ES256"`, `["ES256"]`), TokenMalformed},
		"alg of another size":              {swap("ES256", "ES384"), AlgorithmNotAllowed},
		"alg of another key of the set":    {swap("ES256", "EdDSA"), AlgorithmNotAllowed},
		"HS256":                            {swap("ES256", "HS256"), AlgorithmNotAllowed},
		"alg twice":                        {headerOf(key, `"alg":"ES256"`), TokenMalformed},
		"kid of another key":               {swap(kid, other.Public().ID), AlgorithmNotAllowed},
		"kid unknown":                      {swap(kid, strings.Repeat("A", 43)), KeyUnknown},
		"kid missing":                      {swap(`"kid":"`+kid+`",`, ""), KeyUnknown},
		"kid empty":                        {swap(kid, ""), KeyUnknown},
		"kid a number":                     {swap(`"`+kid+`"`, "1"), TokenMalformed},
		"kid a path":                       {swap(kid, "../../../../dev/null"), KeyUnknown},
		"kid a URL":                        {swap(kid, "https://evil.example.com/key"), KeyUnknown},
		"kid with SQL":                     {swap(kid, "' UNION SELECT 'x"), KeyUnknown},
		"kid twice":                        {headerOf(key, `"kid":"`+kid+`"`), TokenMalformed},
		"typ missing":                      {swap(`,"typ":"at+jwt"`, ""), TokenMalformed},
		"typ JWT":                          {swap("at+jwt", "JWT"), TokenMalformed},
		"typ in upper case":                {swap("at+jwt", "AT+JWT"), TokenMalformed},
		"typ of another kind":              {swap("at+jwt", "dpop+jwt"), TokenMalformed},
		"typ null":                         {swap(`"at+jwt"`, "null"), TokenMalformed},
		"crit that names nothing":          {headerOf(key, `"crit":[]`), TokenMalformed},
		"crit with an extension":           {headerOf(key, `"crit":["exp"],"exp":1`), TokenMalformed},
		"b64 false":                        {headerOf(key, `"b64":false,"crit":["b64"]`), TokenMalformed},
		"b64 true":                         {headerOf(key, `"b64":true`), TokenMalformed},
		"an unknown member twice":          {headerOf(key, `"x":1,"x":1`), TokenMalformed},
		"a name twice in an ignored value": {headerOf(key, `"jwk":{"kty":"EC","kty":"EC"}`), TokenMalformed},
		"no object":                        {`"ES256"`, TokenMalformed},
		"something after it":               {headerOf(key) + " {}", TokenMalformed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := v.Verify(forge(t, key, c.header, payload), now)
			wantReason(t, err, c.want)
		})
	}
}

func TestKeysThatASenderBringsAlongAreIgnored(t *testing.T) {
	key, attacker := keyFor(t, ES256), keyFor(t, ES384)
	v := verifierFor(t, key)
	jwk, err := attacker.Public().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, member := range map[string]string{
		"jwk": `"jwk":` + string(jwk), "jku": `"jku":"http://127.0.0.1:1/jwks"`,
		"x5u": `"x5u":"file:///dev/null"`, "x5c": `"x5c":["MIIB"]`, "unknown": `"zip":"DEF"`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := v.Verify(forge(t, key, headerOf(key, member), payload), now); err != nil {
				t.Errorf("with our own signature: %v", err)
			}
			header := strings.Replace(headerOf(key, member), "ES256", "ES384", 1)
			_, err := v.Verify(forge(t, attacker, header, payload), now)
			wantReason(t, err, AlgorithmNotAllowed)
			header = strings.Replace(header, key.Public().ID, attacker.Public().ID, 1)
			_, err = v.Verify(forge(t, attacker, header, payload), now)
			wantReason(t, err, KeyUnknown)
		})
	}
}

func TestBothNamesOfTheTypeAreAccepted(t *testing.T) {
	key := keyFor(t, ES256)
	header := strings.Replace(headerOf(key), "at+jwt", "application/at+jwt", 1)
	if _, err := verifierFor(t, key).Verify(forge(t, key, header, payload), now); err != nil {
		t.Error(err)
	}
}

// The public key as an HMAC secret is the classic confusion (RFC 8725 section 2.1).
func TestAPublicKeyIsNoSharedSecret(t *testing.T) {
	for _, alg := range []Algorithm{RS256, ES256, EdDSA} {
		key := keyFor(t, alg)
		der, err := x509.MarshalPKIXPublicKey(key.Public().Key)
		if err != nil {
			t.Fatal(err)
		}
		jwk, _ := key.Public().MarshalJSON()
		secrets := map[string][]byte{
			"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "DER": der, "JWK": jwk, "nothing": nil,
		}
		for form, secret := range secrets {
			t.Run(string(alg)+" as "+form, func(t *testing.T) {
				for _, name := range []string{"HS256", string(alg)} {
					header := strings.Replace(headerOf(key), string(alg), name, 1)
					signingString := encodeBase64([]byte(header)) + "." + encodeBase64([]byte(payload))
					mac := hmac.New(sha256.New, secret)
					mac.Write([]byte(signingString))
					if _, err := verifierFor(t, key).Verify(signingString+"."+encodeBase64(mac.Sum(nil)), now); err == nil {
						t.Errorf("accepted with alg %s", name)
					}
				}
			})
		}
	}
}

func TestEachAlgorithmTakesOnlyItsOwnSignature(t *testing.T) {
	rsa := keyFor(t, RS256)
	for _, signed := range []Algorithm{RS256, RS384, RS512, PS256, PS384, PS512} {
		for _, wanted := range []Algorithm{RS256, RS384, RS512, PS256, PS384, PS512} {
			key, err := newPrivateKey(wanted, rsa.signer)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := newPrivateKey(signed, rsa.signer)
			if err != nil {
				t.Fatal(err)
			}
			_, err = verifierFor(t, key).Verify(forge(t, signer, headerOf(key), payload), now)
			if signed == wanted && err != nil {
				t.Errorf("%s: %v", signed, err)
			}
			if signed != wanted {
				wantReason(t, err, SignatureInvalid)
			}
			_, err = verifierFor(t, key).Verify(forge(t, signer, headerOf(signer), payload), now)
			if signed != wanted {
				wantReason(t, err, AlgorithmNotAllowed)
			}
		}
	}
}

func TestASignatureOfTheLibraryWithALongSaltIsRefused(t *testing.T) {
	key := keyFor(t, PS256)
	signingString := encodeBase64([]byte(headerOf(key))) + "." + encodeBase64([]byte(payload))
	salted := *jwt.SigningMethodPS256
	options := *salted.Options
	options.SaltLength = 20
	salted.Options = &options
	signature, err := salted.Sign(signingString, key.signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := jwt.SigningMethodPS256.Verify(signingString, signature, key.Public().Key); err != nil {
		t.Fatalf("the library refuses it as well: %v", err)
	}
	_, err = verifierFor(t, key).Verify(signingString+"."+encodeBase64(signature), now)
	wantReason(t, err, SignatureInvalid)
}

func TestADERSignatureIsRefused(t *testing.T) {
	key := keyFor(t, ES256)
	signingString := encodeBase64([]byte(headerOf(key))) + "." + encodeBase64([]byte(payload))
	sum := sha256.Sum256([]byte(signingString))
	der, err := key.signer.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifierFor(t, key).Verify(signingString+"."+encodeBase64(der), now)
	wantReason(t, err, SignatureInvalid)
}
