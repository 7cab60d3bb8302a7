// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
)

func pemOf(tb testing.TB, kind string, der []byte, err error) string {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestPrivateKeysAreReadFromEveryUsualForm(t *testing.T) {
	ec, isEC := keyFor(t, ES256).signer.(*ecdsa.PrivateKey)
	rsaKey, isRSA := keyFor(t, RS256).signer.(*rsa.PrivateKey)
	if !isEC || !isRSA {
		t.Fatal("the keys are of another type")
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	for name, c := range map[string]struct {
		alg Algorithm
		pem string
	}{
		"EC in SEC 1":                        {ES256, pemOf(t, "EC PRIVATE KEY", sec1, err)},
		"EC in SEC 1 after its parameters":   {ES256, pemOf(t, "EC PARAMETERS", []byte{6, 8}, nil) + pemOf(t, "EC PRIVATE KEY", sec1, err)},
		"RSA in PKCS #1":                     {RS256, pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil)},
		"RSA in PKCS #1 for PSS":             {PS512, pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil)},
		"a key with a certificate beside it": {ES256, pemOf(t, "CERTIFICATE", []byte("x"), nil) + pemOf(t, "EC PRIVATE KEY", sec1, err)},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ParsePrivateKeyPEM(c.alg, []byte(c.pem))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := verifierFor(t, key).Verify(mustSign(t, key, goodClaims()), now); err != nil {
				t.Error(err)
			}
		})
	}
	for _, alg := range Algorithms() {
		t.Run(string(alg)+" in PKCS #8", func(t *testing.T) {
			key := keyFor(t, alg)
			der, err := key.PKCS8()
			again, err := ParsePrivateKeyPEM(alg, []byte(pemOf(t, "PRIVATE KEY", der, err)))
			if err != nil {
				t.Fatal(err)
			}
			if again.Public().ID != key.Public().ID {
				t.Error("another key came back")
			}
		})
	}
}

func TestWhatIsNoFittingPrivateKeyIsRefused(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		return pemOf(t, "PRIVATE KEY", der, err)
	}
	ec := pkcs8(keyFor(t, ES256).signer)
	public, err := x509.MarshalPKIXPublicKey(keyFor(t, ES256).public.Key)
	for name, c := range map[string]struct {
		alg  Algorithm
		pem  string
		want error
	}{
		"nothing":                           {ES256, "", ErrNotAKey},
		"text":                              {ES256, "hunter2", ErrNotAKey},
		"a public key":                      {ES256, pemOf(t, "PUBLIC KEY", public, err), ErrNotAKey},
		"a certificate":                     {ES256, pemOf(t, "CERTIFICATE", []byte("x"), nil), ErrNotAKey},
		"a block that is cut":               {ES256, ec[:len(ec)/2], ErrNotAKey},
		"a block of rubbish":                {ES256, pemOf(t, "PRIVATE KEY", []byte("rubbish"), nil), ErrNotAKey},
		"rubbish as SEC 1":                  {ES256, pemOf(t, "EC PRIVATE KEY", []byte("rubbish"), nil), ErrNotAKey},
		"rubbish as PKCS #1":                {RS256, pemOf(t, "RSA PRIVATE KEY", []byte("rubbish"), nil), ErrNotAKey},
		"two keys":                          {ES256, ec + ec, ErrNotAKey},
		"an encrypted key":                  {ES256, pemOf(t, "ENCRYPTED PRIVATE KEY", []byte("x"), nil), ErrNotAKey},
		"an encrypted key in the old form":  {RS256, "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", ErrNotAKey},
		"a file that is too large":          {ES256, ec + strings.Repeat("\n", maxPEMBytes), ErrNotAKey},
		"a key for another algorithm":       {RS256, ec, ErrWrongKeyType},
		"a key on another curve":            {ES384, ec, ErrWrongKeyType},
		"a key on a curve without an alg":   {ES256, pkcs8(p224), ErrWrongKeyType},
		"a key that cannot sign":            {EdDSA, pkcs8(x25519), ErrWrongKeyType},
		"an RSA key that is too short":      {RS256, pkcs8(short), ErrKeyTooShort},
		"an algorithm that is not one":      {"HS256", ec, ErrWrongKeyType},
		"an algorithm in the wrong case":    {"es256", ec, ErrWrongKeyType},
		"an algorithm without a key (none)": {"none", ec, ErrWrongKeyType},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePrivateKeyPEM(c.alg, []byte(c.pem))
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the error quotes the file")
			}
		})
	}
}

func TestSizesOfGeneratedKeysAreBounded(t *testing.T) {
	for _, bits := range []int{-1, 1, 1024, 2047, 8193, 1 << 30} {
		if _, err := GenerateKey(RS256, bits); err == nil {
			t.Errorf("%d bits: accepted", bits)
		}
	}
	if _, err := GenerateKey("none", 0); err == nil {
		t.Error("none: accepted")
	}
}

// RFC 6979 appendix A.2.5, P-256 with SHA-256, message "sample".
func TestECDSASignsAsRFC6979Says(t *testing.T) {
	scalar, _ := hex.DecodeString("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := ES256.method().Sign("sample", key)
	if err != nil {
		t.Fatal(err)
	}
	const want = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716" +
		"f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
	if got := hex.EncodeToString(signature); got != want {
		t.Errorf("got %s", got)
	}
	if _, err := ES384.method().Sign("sample", key); !errors.Is(err, ErrWrongKeyType) {
		t.Errorf("with the curve of another algorithm: %v", err)
	}
}

func TestAPrivateKeyShowsItselfNowhere(t *testing.T) {
	for _, alg := range Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			key := keyFor(t, alg)
			der, err := key.PKCS8()
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			for _, logger := range []*slog.Logger{slog.New(slog.NewTextHandler(&log, nil)), slog.New(slog.NewJSONHandler(&log, nil))} {
				logger.Info("key", "pointer", key, "value", *key, "inside", struct{ K *PrivateKey }{key}, "list", []*PrivateKey{key})
			}
			for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q", "%T"} {
				fmt.Fprintf(&log, format+format+format, key, *key, struct{ K *PrivateKey }{key})
			}
			if err := json.NewEncoder(&log).Encode(map[string]any{"p": key, "v": *key, "in": struct{ K *PrivateKey }{key}}); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), key.Public().ID) {
				t.Fatal("nothing was printed: the test shows nothing")
			}
			for name, secret := range secretsOf(key, der) {
				if strings.Contains(strings.ToLower(log.String()), strings.ToLower(secret)) {
					t.Errorf("%s is printed", name)
				}
			}
		})
	}
}

// secretsOf are the spellings in which key material could leak.
func secretsOf(key *PrivateKey, der []byte) map[string]string {
	out := map[string]string{"DER in hexadecimal": hex.EncodeToString(der), "DER in base64": encodeBase64(der)}
	numbers := map[string]*big.Int{}
	switch k := key.signer.(type) {
	case *rsa.PrivateKey:
		numbers["d"], numbers["p"] = k.D, k.Primes[0]
	case *ecdsa.PrivateKey:
		raw, _ := k.Bytes()
		numbers["d"] = new(big.Int).SetBytes(raw)
	default:
		numbers["seed"] = new(big.Int).SetBytes(der[len(der)-32:])
	}
	for name, n := range numbers {
		out[name+" in decimal"], out[name+" in hexadecimal"], out[name+" in base64"] = n.String(), n.Text(16), encodeBase64(n.Bytes())
		list := strings.Trim(fmt.Sprintf("%d", n.Bytes()), "[]")
		out[name+" as a list"] = list[:len(list)/2]
	}
	return out
}
