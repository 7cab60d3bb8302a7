// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Sign mints a token. The same key and the same claims give the same bytes, except
// with PS*, whose salt is random. It never mints what a [Verifier] would not read: a
// claim that is missing or out of range, an extra claim with a registered name, or more
// than [MaxLength] bytes is an [*Error] with the reason that a verifier would give.
func (k *PrivateKey) Sign(c Claims) (string, error) {
	payload, err := encodeClaims(c)
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	signingString := k.header + "." + encodeBase64(payload)
	signature, err := k.public.Algorithm.method().Sign(signingString, k.signer)
	if err != nil {
		return "", fmt.Errorf("mint token: sign with key %q: %w", k.public.ID, err)
	}
	raw := signingString + "." + encodeBase64(signature)
	if len(raw) > MaxLength {
		return "", fmt.Errorf("mint token: %w", refuse(TokenTooLarge, "with these claims it has more than 8192 bytes"))
	}
	return raw, nil
}

// encodeClaims writes the claims in a fixed order: the registered ones, then the others by name.
func encodeClaims(c Claims) ([]byte, error) {
	e := encoder{buf: make([]byte, 0, 512)}
	e.buf = append(e.buf, '{')
	e.text("iss", c.Issuer)
	e.text("sub", c.Subject)
	e.audience(c.Audience)
	e.date("exp", c.ExpiresAt)
	if !c.NotBefore.IsZero() {
		e.date("nbf", c.NotBefore)
	}
	e.date("iat", c.IssuedAt)
	e.text("jti", c.ID)
	e.text("sid", c.SessionID)
	e.text("client_id", c.ClientID)
	e.name("gen")
	e.buf = strconv.AppendInt(e.buf, c.Generation, 10)
	e.extra(c.Extra)
	e.buf = append(e.buf, '}')
	if e.err != nil {
		return nil, e.err
	}
	return e.buf, readable(e.buf)
}

// readable holds what was written against what a verifier wants.
func readable(payload []byte) error {
	claims, has, err := decodeClaims(string(payload))
	if err != nil {
		return err
	}
	return complete(claims, has)
}

// encoder appends members to an object and keeps the first error.
type encoder struct {
	buf []byte
	err error
}

func (e *encoder) name(name string) {
	if len(e.buf) > 1 {
		e.buf = append(e.buf, ',')
	}
	e.quote(name)
	e.buf = append(e.buf, ':')
}

func (e *encoder) text(name, value string) {
	e.name(name)
	e.quote(value)
}

// quote refuses what encoding/json would silently change, and needs it only for
// strings that have something to escape.
func (e *encoder) quote(text string) {
	if !utf8.ValidString(text) {
		e.fail(refuse(TokenMalformed, "a claim is not valid Unicode"))
		return
	}
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' {
			e.value(text)
			return
		}
	}
	e.buf = append(e.buf, '"')
	e.buf = append(e.buf, text...)
	e.buf = append(e.buf, '"')
}

// audience is a plain string when there is one only, which every reader takes.
func (e *encoder) audience(list []string) {
	e.name("aud")
	if len(list) == 1 {
		e.quote(list[0])
		return
	}
	e.buf = append(e.buf, '[')
	for i, one := range list {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.quote(one)
	}
	e.buf = append(e.buf, ']')
}

func (e *encoder) date(name string, t time.Time) {
	if t.IsZero() {
		e.fail(refuse(ClaimMissing, name+" is missing or empty"))
		return
	}
	e.name(name)
	e.buf = strconv.AppendInt(e.buf, t.Unix(), 10)
}

func (e *encoder) extra(claims map[string]any) {
	if len(claims) == 0 {
		return
	}
	for _, name := range registered() {
		if _, ok := claims[name]; ok {
			e.fail(refuse(ClaimMismatch, "an extra claim has the name of a registered one"))
			return
		}
	}
	object, err := EncodeExtra(claims)
	if err != nil {
		e.fail(err)
		return
	}
	e.buf = append(e.buf, ',')
	e.buf = append(e.buf, object[1:len(object)-1]...)
}

func (e *encoder) value(v any) {
	var out bytes.Buffer
	if err := encodeJSON(&out, v); err != nil {
		e.fail(err)
		return
	}
	e.buf = append(e.buf, out.Bytes()...)
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// encodeJSON leaves <, > and & as they are: a token is not HTML.
func encodeJSON(out *bytes.Buffer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		// The error of encoding/json may hold the value.
		return errors.New("a claim cannot be written as JSON")
	}
	out.Truncate(out.Len() - 1) // Encode ends with a line feed
	return nil
}

// EncodeExtra writes extra claims as a JSON object, by name: the form in which they
// can be stored so that a token can be minted again byte for byte. Nil gives "{}".
func EncodeExtra(claims map[string]any) ([]byte, error) {
	if len(claims) == 0 {
		return []byte("{}"), nil
	}
	var out bytes.Buffer
	if err := encodeJSON(&out, claims); err != nil {
		return nil, fmt.Errorf("encode extra claims: %w", err)
	}
	return out.Bytes(), nil
}

// DecodeExtra reads what [EncodeExtra] wrote, with numbers as [json.Number].
func DecodeExtra(object []byte) (map[string]any, error) {
	s := newScanner(string(object), claimLimits)
	var claims map[string]any
	err := s.document(func(name string) error {
		value, err := s.value()
		if claims == nil {
			claims = map[string]any{}
		}
		claims[name] = value
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("decode extra claims: %w", err)
	}
	return claims, nil
}
