// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// The RSA moduli that are accepted, in bits. RFC 7518 section 3.3 wants the lower
// bound; the upper one bounds the work of a verification.
const (
	MinRSABits     = 2048
	MaxRSABits     = 8192
	DefaultRSABits = 3072
)

// PublicKey verifies tokens of one algorithm (RFC 8725 section 3.1). It is immutable
// and comes from [NewPublicKey] or a JWK. Its JSON form is a JWK (RFC 7517) with
// "kid", "alg" and "use".
type PublicKey struct {
	// ID is the RFC 7638 thumbprint with SHA-256, in base64url: 43 characters.
	ID        string
	Algorithm Algorithm
	// Key is [ed25519.PublicKey], [*ecdsa.PublicKey] or [*rsa.PublicKey].
	Key crypto.PublicKey
}

// NewPublicKey checks that the key is one for the algorithm: type, curve, size. The
// errors are [ErrWrongKeyType], [ErrKeyTooShort], [ErrKeyTooLong] and [ErrKeyWeak].
func NewPublicKey(alg Algorithm, pub crypto.PublicKey) (PublicKey, error) {
	params, err := paramsOf(alg, pub)
	if err != nil {
		return PublicKey{}, err
	}
	return PublicKey{ID: params.thumbprint(), Algorithm: alg, Key: params.key}, nil
}

// jwkParams are the members of a JWK that make the key (RFC 7518 section 6, RFC 8037
// section 2), with a copy of the key of our own. The order of the fields is that
// of RFC 7638 section 3.2: by name.
type jwkParams struct {
	crv, e, kty, n, x, y string

	key crypto.PublicKey
}

func paramsOf(alg Algorithm, pub crypto.PublicKey) (jwkParams, error) {
	switch alg.family() {
	case familyOKP:
		if key, ok := pub.(ed25519.PublicKey); ok && len(key) == ed25519.PublicKeySize {
			return jwkParams{kty: "OKP", crv: "Ed25519", x: encodeBase64(key), key: slices.Clone(key)}, nil
		}
	case familyEC:
		if key, ok := pub.(*ecdsa.PublicKey); ok && key != nil && key.Curve == alg.curve() {
			return ecParams(key)
		}
	case familyRSA:
		if key, ok := pub.(*rsa.PublicKey); ok && key != nil && key.N != nil {
			return rsaParams(key)
		}
	case familyNone:
		return jwkParams{}, fmt.Errorf("%w: the algorithm is not supported", ErrWrongKeyType)
	}
	return jwkParams{}, fmt.Errorf("%w: %s takes %s", ErrWrongKeyType, alg, alg.keyName())
}

func ecParams(key *ecdsa.PublicKey) (jwkParams, error) {
	point, err := key.Bytes() // 4, x, y; fails when the point is not on the curve
	if err != nil {
		return jwkParams{}, fmt.Errorf("%w: the point is not on the curve", ErrWrongKeyType)
	}
	clone, err := ecdsa.ParseUncompressedPublicKey(key.Curve, point)
	if err != nil {
		return jwkParams{}, fmt.Errorf("%w: the point is not on the curve", ErrWrongKeyType)
	}
	size := (len(point) - 1) / 2
	return jwkParams{
		kty: "EC", crv: key.Curve.Params().Name,
		x: encodeBase64(point[1 : 1+size]), y: encodeBase64(point[1+size:]), key: clone,
	}, nil
}

func rsaParams(key *rsa.PublicKey) (jwkParams, error) {
	switch bits := key.N.BitLen(); {
	case bits < MinRSABits:
		return jwkParams{}, fmt.Errorf("%w: %d bits, at least %d are needed", ErrKeyTooShort, bits, MinRSABits)
	case bits > MaxRSABits:
		return jwkParams{}, fmt.Errorf("%w: %d bits, at most %d are accepted", ErrKeyTooLong, bits, MaxRSABits)
	}
	if key.N.Sign() < 0 || key.N.Bit(0) == 0 || key.E < 3 || key.E%2 == 0 || key.E > 1<<31-1 {
		return jwkParams{}, fmt.Errorf("%w: modulus or exponent is not that of an RSA key", ErrWrongKeyType)
	}
	if hasROCA(key.N) {
		return jwkParams{}, fmt.Errorf("%w: it was made by a generator with the fault CVE-2017-15361", ErrKeyWeak)
	}
	return jwkParams{
		kty: "RSA", n: encodeBase64(key.N.Bytes()), e: encodeBase64(big.NewInt(int64(key.E)).Bytes()),
		key: &rsa.PublicKey{N: new(big.Int).Set(key.N), E: key.E},
	}, nil
}

// keyName is what an algorithm takes, in words.
func (a Algorithm) keyName() string {
	switch a.family() {
	case familyOKP:
		return "an Ed25519 key"
	case familyEC:
		return "an ECDSA key on " + a.curve().Params().Name
	case familyRSA:
		return "an RSA key"
	case familyNone:
	}
	return "no key"
}

// thumbprint is RFC 7638 section 3. No value needs escaping.
func (p jwkParams) thumbprint() string {
	out := []byte{'{'}
	for _, member := range [...][2]string{{"crv", p.crv}, {"e", p.e}, {"kty", p.kty}, {"n", p.n}, {"x", p.x}, {"y", p.y}} {
		if member[1] == "" {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, `"`+member[0]+`":"`+member[1]+`"`...)
	}
	sum := sha256.Sum256(append(out, '}'))
	return encodeBase64(sum[:])
}

// check refuses a key that was put together by hand and is not what its fields say.
func (k PublicKey) check() error {
	again, err := NewPublicKey(k.Algorithm, k.Key)
	if err != nil {
		return err
	}
	if again.ID != k.ID {
		return errors.New("the key's id is not its thumbprint")
	}
	return nil
}
