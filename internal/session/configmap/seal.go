// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// SecretName is the Secret with the sealing keys, in the operator's namespace.
	SecretName = "tokenward-sessions"
	// currentKey is the data key that names the sealing key in use: the id alone.
	currentKey = "current"
	// keyPrefix and an id make the data key of a sealing key: 32 random bytes.
	keyPrefix = "key-"
	// maxKeyIDLength fits the length byte of a sealed record.
	maxKeyIDLength = 63
)

// Why a sealed record cannot be opened.
var (
	// errKeyUnknown: sealed with a key that the Secret does not hold. Our outage.
	errKeyUnknown = errors.New("sealed with a key that is not in the Secret " + SecretName)
	// errNewerFormat: written by a release that this one does not understand.
	errNewerFormat = errors.New("written in a newer format")
	// errTampered: not what we sealed for that policy, shard and session.
	errTampered = errors.New("does not authenticate")
)

// Sealer encrypts and authenticates records (XChaCha20-Poly1305, whose nonces may be
// random however many records there are). It holds every key of the Secret, so that
// records sealed before a key rotation stay readable; it seals with the current one.
// It is safe for concurrent use, also with Update.
type Sealer struct {
	keys atomic.Pointer[sealingKeys]
}

type sealingKeys struct {
	current string
	aead    map[string]cipher.AEAD
}

// NewSealer reads the data of the Secret [SecretName].
func NewSealer(data map[string][]byte) (*Sealer, error) {
	s := &Sealer{}
	if err := s.Update(data); err != nil {
		return nil, err
	}
	return s, nil
}

// Update takes the keys of a changed Secret. On an error the ones it had stay in use.
func (s *Sealer) Update(data map[string][]byte) error {
	keys := &sealingKeys{current: strings.TrimSpace(string(data[currentKey])), aead: map[string]cipher.AEAD{}}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		id, isKey := strings.CutPrefix(name, keyPrefix)
		if !isKey {
			continue
		}
		if id == "" || len(id) > maxKeyIDLength {
			return fmt.Errorf("read the sealing keys: data key %q: the id after %q must have 1 to %d characters", name, keyPrefix, maxKeyIDLength)
		}
		aead, err := chacha20poly1305.NewX(data[name])
		if err != nil {
			return fmt.Errorf("read the sealing keys: data key %q has %d bytes, it must have %d random ones", name, len(data[name]), chacha20poly1305.KeySize)
		}
		keys.aead[id] = aead
	}
	if keys.aead[keys.current] == nil {
		return fmt.Errorf("read the sealing keys: data key %q names %q, and there is no data key %q", currentKey, keys.current, keyPrefix+keys.current)
	}
	s.keys.Store(keys)
	return nil
}

// AddSealingKey returns the data of the Secret [SecretName] with a new random key
// that is the current one. The keys in data, which may be nil, are kept: a record is
// sealed anew only when its session is refreshed.
func AddSealingKey(data map[string][]byte) map[string][]byte {
	data = maps.Clone(data)
	if data == nil {
		data = map[string][]byte{}
	}
	// Neither read fails: crypto/rand ends the program instead.
	id, key := make([]byte, 4), make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(id)
	_, _ = rand.Read(key)
	name := fmt.Sprintf("%x", id)
	data[keyPrefix+name], data[currentKey] = key, []byte(name)
	return data
}

// sealVersion is the first byte of a sealed record, which then goes on with the
// length of the key's id, the id, the nonce and the ciphertext.
const sealVersion = 1

// place is where a record belongs. It is authenticated with the record, so that one
// moved to another policy, shard or key does not open.
type place struct {
	policy string
	shard  int
	key    string
}

func (p place) additionalData(header []byte) []byte {
	data := []byte("tokenward session")
	for _, part := range [][]byte{[]byte(p.policy), binary.BigEndian.AppendUint32(nil, uint32(p.shard)), []byte(p.key), header} { //nolint:gosec // at most 64 shards
		data = binary.AppendUvarint(data, uint64(len(part)))
		data = append(data, part...)
	}
	return data
}

func (s *Sealer) seal(at place, plain []byte) []byte {
	keys := s.keys.Load()
	aead := keys.aead[keys.current]
	sealed := make([]byte, 0, 2+len(keys.current)+aead.NonceSize()+len(plain)+aead.Overhead())
	sealed = append(sealed, sealVersion, byte(len(keys.current))) //nolint:gosec // at most maxKeyIDLength
	sealed = append(sealed, keys.current...)
	header := bytes.Clone(sealed)
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce)
	sealed = append(sealed, nonce...)
	return aead.Seal(sealed, nonce, plain, at.additionalData(header))
}

// open returns errKeyUnknown, errNewerFormat or errTampered.
func (s *Sealer) open(at place, sealed []byte) ([]byte, error) {
	if len(sealed) < 2 {
		return nil, errTampered
	}
	if sealed[0] > sealVersion {
		return nil, errNewerFormat
	}
	headerLength := 2 + int(sealed[1])
	if sealed[0] != sealVersion || len(sealed) < headerLength {
		return nil, errTampered
	}
	header := sealed[:headerLength]
	aead := s.keys.Load().aead[string(header[2:])]
	if aead == nil {
		return nil, errKeyUnknown
	}
	body := sealed[headerLength:]
	if len(body) < aead.NonceSize() {
		return nil, errTampered
	}
	plain, err := aead.Open(nil, body[:aead.NonceSize()], body[aead.NonceSize():], at.additionalData(header))
	if err != nil {
		return nil, errTampered
	}
	return plain, nil
}

// String keeps keys out of logs.
func (s *Sealer) String() string { return "sealer(redacted)" }

// GoString keeps keys out of logs.
func (s *Sealer) GoString() string { return s.String() }

// shortHash is 128 bits of a hash in the characters of a ConfigMap's data key.
func shortHash(sum []byte) string { return base64.RawURLEncoding.EncodeToString(sum[:16]) }
