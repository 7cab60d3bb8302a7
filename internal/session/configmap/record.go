// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/token"
)

// recordFormat is the first byte of an opened record. A release reads its own format
// and older ones; a newer one it leaves alone.
const recordFormat = 1

// record is what is sealed: a session, and what the store must know of its last write.
type record struct {
	session.Session
	// prior is the version before the present one, see landed.
	prior string
	// sequence numbers the revocations of a shard; 0 for a live session.
	sequence int64
}

// newVersion names one write. It is random: two writers that both follow the same
// version must not come to the same name.
func newVersion() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// landed reports whether the write with that version was made, even if another one
// followed it since.
func (r *record) landed(version string) bool { return r.Version == version || r.prior == version }

func (r *record) dead(now time.Time) bool { return now.After(r.KeepUntil()) }

// encode writes the fields in a fixed order. It is a third of the size of JSON, and
// the size of a shard is what an update costs.
func (r *record) encode() []byte {
	w := writer{recordFormat}
	w.text(string(r.ID))
	w.text(r.Subject)
	w.number(r.Generation)
	w.issued(r.Current)
	w.issued(r.Previous)
	for _, t := range []time.Time{r.RotatedAt, r.CreatedAt, r.LastRefreshAt, r.IdleUntil, r.ExpiresAt, r.TokensUntil} {
		w.time(t)
	}
	var revoked session.Revocation
	if r.Revoked != nil {
		revoked = *r.Revoked
	}
	w.text(string(revoked.Reason))
	w.time(revoked.At)
	w.number(r.sequence)
	w.text(r.Version)
	w.text(r.prior)
	return w
}

func decode(policy session.PolicyID, data []byte) (*record, error) {
	if len(data) == 0 {
		return nil, errTampered
	}
	if data[0] > recordFormat {
		return nil, errNewerFormat
	}
	rd := reader{rest: data[1:]}
	r := &record{}
	r.Policy = policy
	r.ID = session.ID(rd.text())
	r.Subject = rd.text()
	r.Generation = rd.number()
	r.Current = rd.issued()
	r.Previous = rd.issued()
	for _, t := range []*time.Time{&r.RotatedAt, &r.CreatedAt, &r.LastRefreshAt, &r.IdleUntil, &r.ExpiresAt, &r.TokensUntil} {
		*t = rd.time()
	}
	revoked := session.Revocation{Reason: token.Reason(rd.text()), At: rd.time()}
	if revoked.Reason != "" {
		r.Revoked = &revoked
	}
	r.sequence = rd.number()
	r.Version = rd.text()
	r.prior = rd.text()
	// A record that opens was sealed by us. One that does not parse all the same is
	// as little to be trusted as one that does not open.
	if data[0] != recordFormat || rd.broken || len(rd.rest) > 0 {
		return nil, errTampered
	}
	return r, nil
}

type writer []byte

func (w *writer) number(n int64) { *w = binary.AppendVarint(*w, n) }

func (w *writer) text(s string) {
	*w = binary.AppendUvarint(*w, uint64(len(s)))
	*w = append(*w, s...)
}

// time is in seconds; 0 stands for the zero time.
func (w *writer) time(t time.Time) {
	if t.IsZero() {
		w.number(0)
		return
	}
	w.number(t.Unix())
}

func (w *writer) issued(i session.Issued) {
	w.text(i.ID)
	w.time(i.IssuedAt)
	w.time(i.ExpiresAt)
	w.text(i.KeyID)
	w.text(string(i.Claims))
}

type reader struct {
	rest   []byte
	broken bool
}

func (r *reader) number() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.broken = true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) text() string {
	length, size := binary.Uvarint(r.rest)
	if size <= 0 || length > uint64(len(r.rest)-size) { //nolint:gosec // size is at most len(r.rest)
		r.broken = true
		return ""
	}
	s := string(r.rest[size : size+int(length)]) //nolint:gosec // not more than len(r.rest)
	r.rest = r.rest[size+int(length):]           //nolint:gosec // the same
	return s
}

func (r *reader) time() time.Time {
	n := r.number()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

func (r *reader) issued() session.Issued {
	i := session.Issued{ID: r.text(), IssuedAt: r.time(), ExpiresAt: r.time(), KeyID: r.text()}
	if claims := r.text(); claims != "" {
		i.Claims = []byte(claims)
	}
	return i
}
