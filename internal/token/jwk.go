// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// jwkLimits are for one JWK and, with more values, for a set of them.
var jwkLimits = limits{depth: 6, values: 128}

// jwk is the JSON form of a public key (RFC 7517 section 4).
type jwk struct {
	KeyType   string    `json:"kty"`
	Curve     string    `json:"crv,omitempty"`
	X         string    `json:"x,omitempty"`
	Y         string    `json:"y,omitempty"`
	Modulus   string    `json:"n,omitempty"`
	Exponent  string    `json:"e,omitempty"`
	KeyID     string    `json:"kid"`
	Algorithm Algorithm `json:"alg"`
	Use       string    `json:"use"`
}

// MarshalJSON writes the key as a JWK.
func (k PublicKey) MarshalJSON() ([]byte, error) {
	p, err := paramsOf(k.Algorithm, k.Key)
	if err != nil {
		return nil, fmt.Errorf("write key %q as JWK: %w", k.ID, err)
	}
	return json.Marshal(jwk{
		KeyType: p.kty, Curve: p.crv, X: p.x, Y: p.y, Modulus: p.n, Exponent: p.e,
		KeyID: p.thumbprint(), Algorithm: k.Algorithm, Use: "sig",
	})
}

// UnmarshalJSON reads a JWK as strictly as [ParseKeySet] does.
func (k *PublicKey) UnmarshalJSON(data []byte) error {
	s := newScanner(string(data), jwkLimits)
	s.space()
	members, err := s.value()
	if err != nil {
		return fmt.Errorf("read JWK: %w", err)
	}
	if s.space(); s.pos != len(s.in) {
		return fmt.Errorf("read JWK: %w", errJSONSyntax)
	}
	object, ok := members.(map[string]any)
	if !ok {
		return fmt.Errorf("read JWK: %w", errJSONType)
	}
	key, err := publicKeyOf(object)
	if err != nil {
		return fmt.Errorf("read JWK: %w", err)
	}
	*k = key
	return nil
}

// errKeyNotUnderstood is for a key that a later release may write: RFC 7517 section 5
// says to leave it out.
var errKeyNotUnderstood = errors.New("the key's alg is not supported")

// publicKeyOf makes a key of a decoded JWK.
func publicKeyOf(members map[string]any) (PublicKey, error) {
	for _, private := range [...]string{"d", "k", "p", "q", "dp", "dq", "qi", "oth", "priv"} {
		if _, ok := members[private]; ok {
			return PublicKey{}, errors.New("it holds private key material: write public keys only")
		}
	}
	var bad error
	text := func(name string) string {
		value, ok := members[name].(string)
		if !ok && bad == nil {
			bad = fmt.Errorf("member %q is missing or not a string", name)
		}
		return value
	}
	alg, id, use := Algorithm(text("alg")), text("kid"), text("use")
	switch {
	case bad != nil:
		return PublicKey{}, bad
	case use != "sig":
		return PublicKey{}, errors.New(`member "use" is not "sig"`)
	case members["key_ops"] != nil:
		return PublicKey{}, errors.New(`member "key_ops" stands beside "use": remove it`)
	case !alg.Valid():
		return PublicKey{}, errKeyNotUnderstood
	}
	pub, err := materialOf(alg, text, &bad)
	if err != nil {
		return PublicKey{}, err
	}
	key, err := NewPublicKey(alg, pub)
	if err != nil {
		return PublicKey{}, err
	}
	if key.ID != id {
		return PublicKey{}, errors.New(`member "kid" is not the thumbprint of the key (RFC 7638)`)
	}
	return key, nil
}

// materialOf reads the members that make the key. text reports a missing one in bad.
func materialOf(alg Algorithm, text func(string) string, bad *error) (crypto.PublicKey, error) {
	number := func(name string) []byte {
		value, ok := decodeBase64(text(name))
		if !ok && *bad == nil {
			*bad = fmt.Errorf("member %q is not base64url", name)
		}
		return value
	}
	var pub crypto.PublicKey
	switch kty := text("kty"); {
	case kty == "OKP" && alg.family() == familyOKP && text("crv") == "Ed25519":
		pub = ed25519.PublicKey(number("x"))
	case kty == "EC" && alg.family() == familyEC && text("crv") == alg.curve().Params().Name:
		point := append(append([]byte{4}, number("x")...), number("y")...)
		key, err := ecdsa.ParseUncompressedPublicKey(alg.curve(), point)
		if err != nil && *bad == nil {
			*bad = fmt.Errorf("%w: the point is not on the curve", ErrWrongKeyType)
		}
		pub = key
	case kty == "RSA" && alg.family() == familyRSA:
		n, e := number("n"), number("e")
		if len(n) > MaxRSABits/8+1 || len(e) > 4 {
			return nil, fmt.Errorf("%w: the modulus or exponent is too large", ErrKeyTooLong)
		}
		if *bad == nil && (len(n) == 0 || n[0] == 0 || len(e) == 0 || e[0] == 0) {
			*bad = errors.New("the modulus or exponent is not written in the fewest bytes (RFC 7518 section 6.3.1)")
		}
		pub = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	default:
		if *bad == nil {
			*bad = fmt.Errorf("%w: kty and crv are not those of %s", ErrWrongKeyType, alg)
		}
	}
	return pub, *bad
}
