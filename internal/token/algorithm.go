// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithm is a JWS "alg" value (RFC 7518 section 3.1, RFC 8037), in its exact case.
type Algorithm string

// The algorithms. There is no "none" and no HMAC.
const (
	EdDSA Algorithm = "EdDSA"
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
	ES512 Algorithm = "ES512"
	RS256 Algorithm = "RS256"
	RS384 Algorithm = "RS384"
	RS512 Algorithm = "RS512"
	PS256 Algorithm = "PS256"
	PS384 Algorithm = "PS384"
	PS512 Algorithm = "PS512"
)

// Algorithms lists all that are supported.
func Algorithms() []Algorithm {
	return []Algorithm{EdDSA, ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512}
}

// Valid says whether the algorithm is one of [Algorithms].
func (a Algorithm) Valid() bool { return a.method() != nil }

// family is the kind of key that an algorithm takes.
type family int

const (
	familyNone family = iota
	familyOKP
	familyEC
	familyRSA
)

func (a Algorithm) family() family {
	switch a {
	case EdDSA:
		return familyOKP
	case ES256, ES384, ES512:
		return familyEC
	case RS256, RS384, RS512, PS256, PS384, PS512:
		return familyRSA
	default:
		return familyNone
	}
}

// curve is nil for all but ES*. RFC 7518 section 3.4 ties each to one curve.
func (a Algorithm) curve() elliptic.Curve {
	switch a {
	case ES256:
		return elliptic.P256()
	case ES384:
		return elliptic.P384()
	case ES512:
		return elliptic.P521()
	default:
		return nil
	}
}

// method is what signs and verifies, nil for an unknown algorithm.
func (a Algorithm) method() jwt.SigningMethod {
	switch a {
	case EdDSA:
		return jwt.SigningMethodEdDSA
	case ES256:
		return deterministicECDSA{jwt.SigningMethodES256}
	case ES384:
		return deterministicECDSA{jwt.SigningMethodES384}
	case ES512:
		return deterministicECDSA{jwt.SigningMethodES512}
	case RS256:
		return jwt.SigningMethodRS256
	case RS384:
		return jwt.SigningMethodRS384
	case RS512:
		return jwt.SigningMethodRS512
	case PS256:
		return strictPSS(jwt.SigningMethodPS256)
	case PS384:
		return strictPSS(jwt.SigningMethodPS384)
	case PS512:
		return strictPSS(jwt.SigningMethodPS512)
	default:
		return nil
	}
}

// strictPSS wants a salt as long as the hash (RFC 7518 section 3.5), where the
// library verifies any length.
func strictPSS(m *jwt.SigningMethodRSAPSS) jwt.SigningMethod {
	exact := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	return &jwt.SigningMethodRSAPSS{SigningMethodRSA: m.SigningMethodRSA, Options: exact, VerifyOptions: exact}
}

// deterministicECDSA signs with the nonce of RFC 6979 section 3.2 instead of a random
// one, so that a token can be minted again byte for byte. It verifies as the library does:
// r and s have a fixed length (RFC 7518 section 3.4), and [ecdsa.Verify] checks their range.
type deterministicECDSA struct{ *jwt.SigningMethodECDSA }

// Sign implements [jwt.SigningMethod].
func (m deterministicECDSA) Sign(signingString string, key any) ([]byte, error) {
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || private.Curve.Params().BitSize != m.CurveBits {
		return nil, fmt.Errorf("sign with %s: %w", m.Name, ErrWrongKeyType)
	}
	hash := m.Hash.New()
	hash.Write([]byte(signingString))
	// A nil source of randomness asks for RFC 6979.
	der, err := private.Sign(nil, hash.Sum(nil), m.Hash)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", m.Name, err)
	}
	var point struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &point); err != nil {
		return nil, fmt.Errorf("sign with %s: %w", m.Name, err)
	}
	signature := make([]byte, 2*m.KeySize)
	point.R.FillBytes(signature[:m.KeySize])
	point.S.FillBytes(signature[m.KeySize:])
	return signature, nil
}

// verifySignature is the only place that decides about a signature.
func (a Algorithm) verifySignature(signingString string, signature []byte, key crypto.PublicKey) bool {
	method := a.method()
	return method != nil && method.Verify(signingString, signature, key) == nil
}
