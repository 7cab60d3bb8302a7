// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/tokenward/tokenward/internal/users/password"
)

const (
	passwordAttribute = "password"
	disabledAttribute = "disabled"

	maxAttributes = 64
	maxListLength = 64
)

// entry is one user, as far as the key's value could be understood.
type entry struct {
	// attributes that may become claims: no password, no hash, not "disabled".
	attributes map[string]any
	disabled   bool
	// proofs are what the fields of a login must prove, in the order of the source's fields.
	proofs []proof
	// invalid: the value is no user at all, and says nothing about one.
	invalid error
	// noLogin: the user is known, but cannot log in until the entry is mended.
	noLogin error
}

// proof is what one field is checked against: a hash, or the digest of a plain value.
type proof struct {
	hash   password.Encoded
	hashed bool
	// digest has one length whatever the value, so that comparing takes one time.
	digest [sha256.Size]byte
}

// broken is why the user of this entry cannot log in; nil when nothing is wrong.
func (e entry) broken() error {
	if e.invalid != nil {
		return e.invalid
	}
	return e.noLogin
}

// parseEntry reads the value of one key. What is wrong is in the entry; nothing in
// it quotes the value.
func parseEntry(value []byte, fields []string) entry {
	attributes, err := parseObject(value)
	if err != nil {
		return entry{invalid: err}
	}
	e := entry{attributes: attributes}
	switch disabled := attributes[disabledAttribute].(type) {
	case nil:
	case bool:
		e.disabled = disabled
	default:
		return entry{invalid: fmt.Errorf("%q must be true or false", disabledAttribute)}
	}
	for _, field := range fields {
		p, err := newProof(field, attributes[field])
		if err != nil && e.noLogin == nil {
			e.noLogin = err
		}
		e.proofs = append(e.proofs, p)
	}
	hideSecrets(attributes)
	return e
}

func newProof(field string, attribute any) (proof, error) {
	if attribute == nil {
		return proof{}, fmt.Errorf("attribute %q is missing: every login must present it", field)
	}
	value, ok := attribute.(string)
	if !ok || value == "" {
		return proof{}, fmt.Errorf("attribute %q must be a string that is not empty", field)
	}
	if field != passwordAttribute && !password.LooksLikeHash(value) {
		return proof{digest: sha256.Sum256([]byte(value))}, nil
	}
	hash, err := password.Parse(value)
	if err != nil {
		return proof{}, fmt.Errorf("attribute %q: %w", field, err)
	}
	return proof{hash: hash, hashed: true}, nil
}

// hideSecrets removes what must never leave the source.
func hideSecrets(attributes map[string]any) {
	delete(attributes, passwordAttribute)
	delete(attributes, disabledAttribute)
	for name, value := range attributes {
		list, isList := value.([]any)
		if !isList {
			list = []any{value}
		}
		for _, item := range list {
			if text, ok := item.(string); ok && password.LooksLikeHash(text) {
				delete(attributes, name)
			}
		}
	}
}

// parseObject reads a JSON object of strings, numbers, booleans and lists of these.
// encoding/json alone takes duplicate names and mends broken UTF-8.
func parseObject(value []byte) (map[string]any, error) {
	if !utf8.Valid(value) {
		return nil, errors.New("the value is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the value is not a JSON object")
	}
	attributes := map[string]any{}
	for d.More() {
		name, value, err := parseMember(d)
		if err != nil {
			return nil, err
		}
		if _, ok := attributes[name]; ok {
			return nil, fmt.Errorf("attribute %q is there twice", shorten(name))
		}
		if len(attributes) == maxAttributes {
			return nil, fmt.Errorf("the object has more than %d attributes", maxAttributes)
		}
		attributes[name] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, errNotJSON
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	return attributes, nil
}

var errNotJSON = errors.New("the value is not well-formed JSON")

func parseMember(d *json.Decoder) (string, any, error) {
	t, err := d.Token()
	if err != nil {
		return "", nil, errNotJSON
	}
	name := t.(string) // the decoder takes no other name
	t, err = d.Token()
	if err != nil {
		return "", nil, errNotJSON
	}
	if t != json.Delim('[') {
		return name, t, checkScalar(name, t)
	}
	list := []any{}
	for d.More() {
		item, err := d.Token()
		if err != nil {
			return "", nil, errNotJSON
		}
		if err := checkScalar(name, item); err != nil {
			return "", nil, err
		}
		if len(list) == maxListLength {
			return "", nil, fmt.Errorf("attribute %q has more than %d items", shorten(name), maxListLength)
		}
		list = append(list, item)
	}
	if _, err := d.Token(); err != nil { // the closing bracket
		return "", nil, errNotJSON
	}
	return name, list, nil
}

func checkScalar(name string, t json.Token) error {
	switch t.(type) {
	case string, bool, json.Number:
		return nil
	}
	return fmt.Errorf("attribute %q is not a string, a number, true, false or a list of these", shorten(name))
}

func shorten(name string) string {
	const most = 64
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}
