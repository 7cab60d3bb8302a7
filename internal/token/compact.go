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
	payload       string // still encoded
	signature     string // still encoded
	header        header
}

// parse checks form and header. It reads each byte of raw once before it allocates
// anything, and no more than [MaxLength] bytes.
func parse(raw string) (compact, error) {
	if raw == "" {
		return compact{}, refuse(TokenMissing, "the token is empty")
	}
	if len(raw) > MaxLength {
		return compact{}, refuse(TokenTooLarge, "the token has more than 8192 bytes")
	}
	first, second, dots := 0, 0, 0
	for i := range len(raw) {
		switch c := raw[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.':
			dots++
			if dots == 1 {
				first = i
			}
			second = i
		default:
			return compact{}, refuse(TokenMalformed, "the token has a character outside base64url and dot")
		}
	}
	if dots != 2 {
		return compact{}, refuse(TokenMalformed, "the token does not have three parts")
	}
	c := compact{signingString: raw[:second], payload: raw[first+1 : second], signature: raw[second+1:]}
	if first == 0 || c.payload == "" || c.signature == "" {
		return compact{}, refuse(TokenMalformed, "a part of the token is empty")
	}
	decoded, ok := decodeBase64(raw[:first])
	if !ok {
		return compact{}, refuse(TokenMalformed, "the header is not canonical base64url")
	}
	var err error
	c.header, err = decodeHeader(string(decoded))
	return c, err
}

// decodeBase64 takes only the one encoding that an encoder makes: no padding, unused
// bits zero (RFC 7515 section 2, RFC 4648 section 3.5). The standard library skips CR
// and LF even in strict mode, so they are looked for here.
func decodeBase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
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
