// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/base64"
	"strings"
)

// MaxLength is the longest token that is looked at, in bytes.
const MaxLength = 8 << 10

// compact is a token taken apart, in a form that is known to be canonical. Nothing
// in it has been verified.
type compact struct {
	// signingString is what the signature is over (RFC 7515 section 5.1).
	signingString string
	header        header
	payload       []byte
	signature     []byte
}

// parse checks form and header. It looks at no more than [MaxLength] bytes, and
// allocates nothing before it knows that there are three parts.
func parse(raw string) (compact, error) {
	if raw == "" {
		return compact{}, refuse(TokenMissing, "the token is empty")
	}
	if len(raw) > MaxLength {
		return compact{}, refuse(TokenTooLarge, "the token has more than 8192 bytes")
	}
	encodedHeader, rest, ok1 := strings.Cut(raw, ".")
	encodedPayload, encodedSignature, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.IndexByte(encodedSignature, '.') >= 0 {
		return compact{}, refuse(TokenMalformed, "the token does not have three parts")
	}
	if encodedHeader == "" || encodedPayload == "" || encodedSignature == "" {
		return compact{}, refuse(TokenMalformed, "a part of the token is empty")
	}
	c := compact{signingString: raw[:len(raw)-len(encodedSignature)-1]}
	decodedHeader, ok := decodeBase64(encodedHeader)
	c.payload, ok1 = decodeBase64(encodedPayload)
	c.signature, ok2 = decodeBase64(encodedSignature)
	if !ok || !ok1 || !ok2 {
		return compact{}, refuse(TokenMalformed, "a part of the token is not canonical base64url")
	}
	var err error
	c.header, err = decodeHeader(string(decodedHeader))
	return c, err
}

// decodeBase64 takes only the one encoding that an encoder makes: no padding, no other
// characters, unused bits zero (RFC 7515 section 2, RFC 4648 section 3.5). The standard
// library skips CR and LF even in strict mode, so they are looked for here.
func decodeBase64(s string) ([]byte, bool) {
	if strings.IndexByte(s, '\r') >= 0 || strings.IndexByte(s, '\n') >= 0 {
		return nil, false
	}
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return decoded, err == nil
}

func encodeBase64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// KeyID is the "kid" of a well-formed token, unverified: good for asking for a key
// that is not known yet, and for nothing else. It is false for a token that cannot be
// valid whatever keys there are.
func KeyID(raw string) (string, bool) {
	c, err := parse(raw)
	if err != nil || !c.header.algorithm.Valid() || !isKeyID(c.header.keyID) {
		return "", false
	}
	return c.header.keyID, true
}
