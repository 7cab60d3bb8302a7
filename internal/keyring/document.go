// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tokenward/tokenward/internal/token"
)

const (
	// format of the document. A reader refuses a higher one: writing the ring back would
	// lose what it does not know.
	format = 1
	// maxBytes is what fits into a Secret or ConfigMap.
	maxBytes = 1 << 20
)

// document is the JSON form of a ring.
type document struct {
	Format           int           `json:"format"`
	Owner            string        `json:"owner"`
	Version          int64         `json:"version"`
	RotateHandled    string        `json:"rotateHandled,omitempty"`
	RotationDeferred bool          `json:"rotationDeferred,omitempty"`
	Keys             []documentKey `json:"keys"`
	Removed          []RemovedKey  `json:"removed,omitempty"`
}

type documentKey struct {
	Public token.PublicKey `json:"public"`
	// Private is PKCS #8; absent in the public record.
	Private     []byte    `json:"private,omitempty"`
	State       State     `json:"state"`
	Imported    bool      `json:"imported,omitempty"`
	PublishedAt time.Time `json:"publishedAt"`
	ActiveFrom  time.Time `json:"activeFrom"`
	RetiredAt   time.Time `json:"retiredAt,omitzero"`
	Retention   string    `json:"retention"`
}

// ErrNewerFormat says that a later release wrote the document. It is not broken, and
// must not be replaced.
var ErrNewerFormat = errors.New("written by a newer release")

// Parse reads the document or the public record. The error holds no key material. It
// is [ErrNewerFormat] for what only a newer release understands.
func Parse(data []byte) (*Ring, error) {
	if len(data) > maxBytes {
		return nil, errors.New("read keyring: more than 1 MiB")
	}
	// By itself: what else a newer format holds need not have the types of this one.
	var head struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(data, &head) == nil && head.Format > format {
		return nil, fmt.Errorf("read keyring: format %d, only %d is understood: %w", head.Format, format, ErrNewerFormat)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		// The error of encoding/json may quote the document.
		return nil, errors.New("read keyring: not a keyring document")
	}
	if doc.Format != format {
		return nil, fmt.Errorf("read keyring: format %d, only %d is understood", doc.Format, format)
	}
	ring := &Ring{
		Owner: doc.Owner, Version: doc.Version,
		RotateHandled: doc.RotateHandled, RotationDeferred: doc.RotationDeferred, Removed: doc.Removed,
	}
	for i, key := range doc.Keys {
		parsed, err := key.parse()
		if err != nil {
			return nil, fmt.Errorf("read keyring: key number %d: %w", i+1, err)
		}
		ring.Keys = append(ring.Keys, parsed)
	}
	if err := ring.check(); err != nil {
		return nil, fmt.Errorf("read keyring: %w", err)
	}
	return ring, nil
}

func (d documentKey) parse() (Key, error) {
	retention, err := time.ParseDuration(d.Retention)
	if err != nil {
		return Key{}, errors.New("the retention is not a duration")
	}
	if d.Public.ID == "" {
		return Key{}, errors.New("the public key is missing")
	}
	key := Key{
		Public: d.Public, State: d.State, Imported: d.Imported,
		PublishedAt: d.PublishedAt, ActiveFrom: d.ActiveFrom, RetiredAt: d.RetiredAt, Retention: retention,
	}
	if len(d.Private) > 0 {
		key.Private, err = token.ParsePKCS8(d.Public.Algorithm, d.Private)
		if err != nil {
			return Key{}, fmt.Errorf("the private half: %w", err)
		}
	}
	return key, nil
}

// Marshal writes the document with private halves, for the operator's own Secret only.
func (r *Ring) Marshal() ([]byte, error) { return r.marshal(true) }

// MarshalPublic writes the public record: the same document without private halves.
func (r *Ring) MarshalPublic() ([]byte, error) { return r.marshal(false) }

func (r *Ring) marshal(private bool) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("write keyring of %q: %w", r.Owner, err)
	}
	doc := document{
		Format: format, Owner: r.Owner, Version: r.Version, Keys: make([]documentKey, 0, len(r.Keys)),
		RotateHandled: r.RotateHandled, RotationDeferred: r.RotationDeferred, Removed: r.Removed,
	}
	for _, key := range r.Keys {
		out := documentKey{
			Public: key.Public, State: key.State, Imported: key.Imported,
			PublishedAt: key.PublishedAt, ActiveFrom: key.ActiveFrom, RetiredAt: key.RetiredAt, Retention: key.Retention.String(),
		}
		if private && key.Private != nil {
			var err error
			if out.Private, err = key.Private.PKCS8(); err != nil {
				return nil, fmt.Errorf("write keyring of %q: %w", r.Owner, err)
			}
		}
		doc.Keys = append(doc.Keys, out)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("write keyring of %q: %w", r.Owner, err)
	}
	return data, nil
}
