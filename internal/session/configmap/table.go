// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/tokenward/tokenward/internal/attempts"
)

const (
	// tableFormat is the first byte of an opened table.
	tableFormat = 1
	// maxKeys is how many keys of attempts are kept, in 22 bytes at most each.
	maxKeys = 8192
)

// digest is an [attempts.Key].
type digest [16]byte

// table is what is known of attempts: the keys whose allowance is not whole. It is
// changed only while it is made, see [table.clone].
type table map[digest]allowance

type allowance struct {
	// whole is the moment of [attempts.Limit], in milliseconds since 1970.
	whole int64
	// turn grows with each attempt that is counted.
	turn int64
}

func (t table) clone() table {
	if t == nil {
		return table{}
	}
	return maps.Clone(t)
}

// take counts an attempt; changed says whether there is something to write.
func (t table) take(key digest, limit attempts.Limit, turn int64, now time.Time) (wait time.Duration, changed bool) {
	var whole time.Time
	known, kept := t[key]
	if kept {
		whole = time.UnixMilli(known.whole)
	}
	next, wait := limit.Take(whole, now)
	if wait > 0 {
		// Being refused is no turn: what is tried on is forgotten as soon as what is not.
		turn = known.turn
	}
	t[key] = allowance{whole: next.UnixMilli(), turn: turn}
	return wait, t[key] != known
}

// giveBack undoes one take.
func (t table) giveBack(key digest, limit attempts.Limit, now time.Time) (changed bool) {
	known, kept := t[key]
	if !kept {
		return false
	}
	known.whole = limit.GiveBack(time.UnixMilli(known.whole)).UnixMilli()
	t[key] = known
	t.forget(now)
	return true
}

// forget removes what is whole again.
func (t table) forget(now time.Time) (removed bool) {
	before := len(t)
	maps.DeleteFunc(t, func(_ digest, a allowance) bool { return a.whole <= now.UnixMilli() })
	return len(t) < before
}

// dead is how many are whole again.
func (t table) dead(now time.Time) int {
	n := 0
	for _, a := range t {
		if a.whole <= now.UnixMilli() {
			n++
		}
	}
	return n
}

// row is a key with what is known of it.
type row struct {
	key digest
	allowance
}

// ordered is the keys by the turn of their last attempt.
func (t table) ordered() []row {
	rows := make([]row, 0, len(t))
	for key, a := range t {
		rows = append(rows, row{key, a})
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.turn, b.turn), slices.Compare(a.key[:], b.key[:]))
	})
	return rows
}

// evict keeps the limit most recent of the keys. So a key that is used up is forgotten
// only after limit attempts on others have counted: who wants to guess on gets one more
// burst for each limit attempts elsewhere, and not one for each of them.
func (t table) evict(limit int) {
	if len(t) <= limit {
		return
	}
	for _, r := range t.ordered()[:len(t)-limit] {
		delete(t, r.key)
	}
}

// encode writes the keys by their turn, which need not be written then.
func (t table) encode() []byte {
	rows := t.ordered()
	base := int64(0)
	for i, r := range rows {
		if i == 0 || r.whole < base {
			base = r.whole
		}
	}
	w := make(writer, 0, 16+len(rows)*22)
	w = append(w, tableFormat)
	w.number(base)
	for _, r := range rows {
		w = append(w, r.key[:]...)
		w = binary.AppendUvarint(w, uint64(r.whole-base)) //nolint:gosec // base is the least of them
	}
	return w
}

func decodeTable(data []byte) (table, error) {
	if len(data) == 0 {
		return nil, errTampered
	}
	if data[0] > tableFormat {
		return nil, errNewerFormat
	}
	rd := reader{rest: data[1:]}
	t, base := table{}, rd.number()
	for !rd.broken && len(rd.rest) > 0 {
		var key digest
		rest := rd.rest[copy(key[:], rd.rest):]
		offset, size := binary.Uvarint(rest)
		if size <= 0 {
			rd.broken = true
			break
		}
		rd.rest = rest[size:]
		t[key] = allowance{whole: base + int64(offset), turn: int64(len(t))} //nolint:gosec // what is wrong is clamped by the limit
	}
	if data[0] != tableFormat || rd.broken {
		return nil, errTampered
	}
	return t, nil
}
