// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

const (
	// MaxKeys is how many keys a key set holds at most.
	MaxKeys = 64
	// maxKeySetBytes is far above [MaxKeys] of the largest keys.
	maxKeySetBytes = 256 << 10
)

// KeySet is the public keys of one SigningKey at one time. It is immutable and safe
// for concurrent use; a nil *KeySet is an empty one. Its JSON form is
//
//	{"owner":"<SigningKey UID>","version":7,"keys":[<JWK>, …]}
type KeySet struct {
	owner    string
	version  int64
	keys     []PublicKey
	byID     map[string]PublicKey
	document []byte
	jwks     []byte
}

// NewKeySet checks the keys and makes a set of them. The version must not be negative.
func NewKeySet(owner string, version int64, keys []PublicKey) (*KeySet, error) {
	switch {
	case owner == "":
		return nil, errors.New("key set: the owner is empty")
	case version < 0:
		return nil, errors.New("key set: the version is negative")
	case len(keys) > MaxKeys:
		return nil, fmt.Errorf("key set: %d keys, at most %d are accepted", len(keys), MaxKeys)
	}
	set := &KeySet{owner: owner, version: version, keys: slices.Clone(keys), byID: make(map[string]PublicKey, len(keys))}
	for _, key := range keys {
		if err := key.check(); err != nil {
			return nil, fmt.Errorf("key set: key %q: %w", key.ID, err)
		}
		if _, ok := set.byID[key.ID]; ok {
			return nil, fmt.Errorf("key set: key %q occurs twice", key.ID)
		}
		set.byID[key.ID] = key
	}
	if err := set.render(); err != nil {
		return nil, err
	}
	return set, nil
}

// render writes both documents once.
func (s *KeySet) render() error {
	keys := s.Keys()
	var err error
	s.jwks, err = json.Marshal(struct {
		Keys []PublicKey `json:"keys"`
	}{keys})
	if err != nil {
		return fmt.Errorf("key set: %w", err)
	}
	s.document, err = json.Marshal(struct {
		Owner   string      `json:"owner"`
		Version int64       `json:"version"`
		Keys    []PublicKey `json:"keys"`
	}{s.owner, s.version, keys})
	if err != nil {
		return fmt.Errorf("key set: %w", err)
	}
	return nil
}

// ParseKeySet reads the JSON form. It refuses repeated names, private members, a "kid"
// that occurs twice or is not the thumbprint, and keys that do not fit their algorithm.
// It ignores members that it does not know, and keys whose "alg" it does not know: a
// later release may write them.
func ParseKeySet(data []byte) (*KeySet, error) {
	if len(data) > maxKeySetBytes {
		return nil, fmt.Errorf("key set: %d bytes, at most %d are accepted", len(data), maxKeySetBytes)
	}
	var (
		owner   string
		version int64 = -1
		keys    []PublicKey
	)
	s := newScanner(string(data), limits{depth: jwkLimits.depth + 2, values: MaxKeys * jwkLimits.values})
	err := s.document(func(name string) (err error) {
		switch name {
		case "owner":
			owner, err = s.text()
		case "version":
			version, err = s.version()
		case "keys":
			keys, err = s.keys()
		default:
			_, err = s.value()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	if version < 0 || keys == nil {
		return nil, errors.New(`key set: "version" or "keys" is missing`)
	}
	return NewKeySet(owner, version, keys)
}

func (s *scanner) version() (int64, error) {
	if !isDigit(s.peek()) {
		return 0, errJSONType
	}
	number, err := s.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, jsonError("the version is not a plain integer")
	}
	return n, nil
}

func (s *scanner) keys() ([]PublicKey, error) {
	keys := []PublicKey{}
	n := 0
	err := s.array(func() error {
		members, err := s.value()
		if err != nil {
			return err
		}
		object, ok := members.(map[string]any)
		if !ok {
			return errJSONType
		}
		if n++; n > MaxKeys {
			return fmt.Errorf("more than %d keys", MaxKeys)
		}
		key, err := publicKeyOf(object)
		if errors.Is(err, errKeyNotUnderstood) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("key number %d: %w", n, err)
		}
		keys = append(keys, key)
		return nil
	})
	return keys, err
}

// Owner is the UID of the SigningKey.
func (s *KeySet) Owner() string {
	if s == nil {
		return ""
	}
	return s.owner
}

// Version rises with every change of the keys of one owner.
func (s *KeySet) Version() int64 {
	if s == nil {
		return 0
	}
	return s.version
}

// Lookup finds a key by its id.
func (s *KeySet) Lookup(kid string) (PublicKey, bool) {
	if s == nil {
		return PublicKey{}, false
	}
	key, ok := s.byID[kid]
	return key, ok
}

// Keys are all keys, in the order in which they were given.
func (s *KeySet) Keys() []PublicKey {
	if s == nil {
		return []PublicKey{}
	}
	return append([]PublicKey{}, s.keys...)
}

// MarshalJSON writes the form that [ParseKeySet] reads.
func (s *KeySet) MarshalJSON() ([]byte, error) {
	if s == nil {
		return []byte("null"), nil
	}
	return slices.Clone(s.document), nil
}

// JWKS is the JWK Set for clients (RFC 7517 section 5): the keys alone.
func (s *KeySet) JWKS() []byte {
	if s == nil {
		return []byte(`{"keys":[]}`)
	}
	return slices.Clone(s.jwks)
}

// Supersedes says whether s may replace old: it belongs to another owner, or it is
// strictly newer. Everything supersedes nil, and nil supersedes nothing.
func (s *KeySet) Supersedes(old *KeySet) bool {
	if s == nil || old == nil {
		return s != nil
	}
	return s.owner != old.owner || s.version > old.version
}
