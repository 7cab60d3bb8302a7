// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
)

// PrivateKey signs tokens. It is immutable and safe for concurrent use. However it is
// printed, logged or marshalled, it shows no more than its id; [PrivateKey.PKCS8] is the
// only way to its material.
type PrivateKey struct {
	public PublicKey
	signer crypto.Signer
	header string // encoded, the same for every token
}

// GenerateKey makes a new key. rsaBits counts for RS* and PS* only; 0 is
// [DefaultRSABits].
func GenerateKey(alg Algorithm, rsaBits int) (*PrivateKey, error) {
	var (
		signer crypto.Signer
		err    error
	)
	switch alg.family() {
	case familyOKP:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case familyEC:
		signer, err = ecdsa.GenerateKey(alg.curve(), rand.Reader)
	case familyRSA:
		if rsaBits == 0 {
			rsaBits = DefaultRSABits
		}
		// Checked before the work, not after it.
		if rsaBits < MinRSABits || rsaBits > MaxRSABits {
			return nil, fmt.Errorf("generate key: RSA modulus of %d bits: choose %d to %d", rsaBits, MinRSABits, MaxRSABits)
		}
		signer, err = rsa.GenerateKey(rand.Reader, rsaBits)
	case familyNone:
		return nil, fmt.Errorf("generate key: algorithm %q is not supported", alg)
	}
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return newPrivateKey(alg, signer)
}

func newPrivateKey(alg Algorithm, signer crypto.Signer) (*PrivateKey, error) {
	if key, ok := signer.(*rsa.PrivateKey); ok && len(key.Primes) != 2 {
		return nil, fmt.Errorf("%w: an RSA key must have two primes", ErrWrongKeyType)
	}
	public, err := NewPublicKey(alg, signer.Public())
	if err != nil {
		return nil, err
	}
	header, err := json.Marshal(struct {
		Algorithm Algorithm `json:"alg"`
		KeyID     string    `json:"kid"`
		Type      string    `json:"typ"`
	}{alg, public.ID, "at+jwt"})
	if err != nil {
		return nil, fmt.Errorf("write token header: %w", err)
	}
	return &PrivateKey{public: public, signer: signer, header: encodeBase64(header)}, nil
}

// ParsePKCS8 reads a key in DER (RFC 5958). The errors are [ErrNotAKey],
// [ErrWrongKeyType], [ErrKeyTooShort], [ErrKeyTooLong] and [ErrKeyWeak].
func ParsePKCS8(alg Algorithm, der []byte) (*PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: not PKCS #8", ErrNotAKey)
	}
	return ofAnyType(alg, key)
}

func ofAnyType(alg Algorithm, key any) (*PrivateKey, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: %s takes %s", ErrWrongKeyType, alg, alg.keyName())
	}
	return newPrivateKey(alg, signer)
}

// maxPEMBytes is far above the largest key.
const maxPEMBytes = 64 << 10

// ParsePrivateKeyPEM reads the one private key in a PEM file: PKCS #8, SEC 1 or PKCS #1,
// not encrypted. Certificates and EC parameters beside it are passed over. The errors
// are those of [ParsePKCS8].
func ParsePrivateKeyPEM(alg Algorithm, data []byte) (*PrivateKey, error) {
	if len(data) > maxPEMBytes {
		return nil, fmt.Errorf("%w: more than 64 KiB", ErrNotAKey)
	}
	var found *PrivateKey
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		key, err := parseBlock(alg, block)
		if err != nil {
			return nil, err
		}
		if key != nil && found != nil {
			return nil, fmt.Errorf("%w: there are several private keys, leave one", ErrNotAKey)
		}
		if key != nil {
			found = key
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: no PEM block PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY", ErrNotAKey)
	}
	return found, nil
}

// parseBlock is nil for a block that is no private key.
func parseBlock(alg Algorithm, block *pem.Block) (*PrivateKey, error) {
	var (
		key any
		err error
	)
	switch block.Type {
	case "PRIVATE KEY":
		return ParsePKCS8(alg, block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errEncrypted()
		}
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errEncrypted()
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the block %s cannot be read", ErrNotAKey, block.Type)
	}
	return ofAnyType(alg, key)
}

func errEncrypted() error {
	return fmt.Errorf("%w: it is encrypted, decrypt it first (openssl pkey)", ErrNotAKey)
}

// Public is the half that everybody may see.
func (k *PrivateKey) Public() PublicKey { return k.public }

// PKCS8 is the key in DER (RFC 5958), which [ParsePKCS8] reads.
func (k *PrivateKey) PKCS8() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("write key %q as PKCS #8: %w", k.public.ID, err)
	}
	return der, nil
}

// String shows the id only.
func (k PrivateKey) String() string { return "private key " + k.public.ID + " [redacted]" }

// Format shows the id only, whatever the verb.
func (k PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue shows the id only.
func (k PrivateKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText shows the id only, in JSON and in every other text format.
func (k PrivateKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
