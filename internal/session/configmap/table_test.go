// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package configmap

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tokenward/tokenward/internal/attempts"
)

func numbered(n uint64) (d digest) {
	binary.BigEndian.PutUint64(d[:], n)
	return d
}

// TestAKeyThatIsUsedUpIsNotForgottenCheaply is what the bound promises: one attempt more
// on a key costs as many on others as are kept, however they are made.
func TestAKeyThatIsUsedUpIsNotForgottenCheaply(t *testing.T) {
	const kept = 100
	now, table, turn := time.Unix(1_800_000_000, 0), table{}, int64(0)
	try := func(n uint64) bool {
		turn++
		wait, _ := table.take(numbered(n), testLimit, turn, now)
		table.evict(kept)
		return wait == 0
	}
	for range testLimit.Burst {
		if !try(0) {
			t.Fatal("refused within the burst")
		}
	}
	for n := range uint64(kept) {
		if try(0) {
			t.Fatalf("after %d attempts on others there was another one", n)
		}
		try(1 + n%(kept/2)) // half of them twice
	}
	if len(table) > kept {
		t.Errorf("%d keys are kept", len(table))
	}
	for n := range uint64(kept) {
		try(1000 + n)
	}
	if len(table) != kept || !try(0) {
		t.Errorf("%d keys are kept, and the oldest is one of them", len(table))
	}
}

func TestABatchOfManyKeysIsBounded(t *testing.T) {
	config := testConfig(t)
	store := open(t, config)
	now := time.Now()
	var batch []*operation
	for n := range uint64(maxKeys + 500) {
		batch = append(batch, &operation{kind: take, digest: numbered(n), limit: testLimit})
	}
	d := store.applyAttempts(&content{entries: map[string]*entry{}}, batch, now)
	e := d.entries[attemptsKey]
	if len(e.table) != maxKeys || !d.changed {
		t.Errorf("%d keys are kept; changed %t", len(e.table), d.changed)
	}
	if _, last := e.table[numbered(maxKeys+499)]; !last {
		t.Error("the last key was forgotten")
	}
	if size := len(e.sealed); size > 200<<10 {
		t.Errorf("a full table has %d bytes", size)
	}
	// When all are whole again, nothing is left to carry along.
	d = store.applyAttempts(&content{entries: d.entries}, batch[:1], now.Add(testLimit.Interval+time.Second))
	if n := len(d.entries[attemptsKey].table); n != 1 {
		t.Errorf("%d keys are kept when all others are whole again", n)
	}
}

func TestTablesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		written, turn := table{}, int64(0)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			key := numbered(rapid.Uint64Range(0, 20).Draw(t, "key"))
			limit := attempts.Limit{Burst: rapid.IntRange(1, 100).Draw(t, "burst"), Interval: time.Duration(rapid.IntRange(1, 86_400_000).Draw(t, "interval")) * time.Millisecond}
			turn++
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				written.giveBack(key, limit, now)
			default:
				written.take(key, limit, turn, now)
			}
		}
		read, err := decodeTable(written.encode())
		if err != nil {
			t.Fatal(err)
		}
		order := func(t table) (keys []digest) {
			for _, r := range t.ordered() {
				keys = append(keys, r.key)
			}
			return keys
		}
		if diff := cmp.Diff(order(written), order(read)); diff != "" {
			t.Errorf("the order differs: %s", diff)
		}
		for key, a := range written {
			if read[key].whole != a.whole {
				t.Errorf("%d became %d", a.whole, read[key].whole)
			}
		}
	})
}

func FuzzDecodeTable(f *testing.F) {
	written := table{}
	for n := range uint64(3) {
		written.take(numbered(n), testLimit, int64(n), time.Unix(1_800_000_000, 0))
	}
	f.Add(written.encode())
	f.Add(table{}.encode())
	f.Add([]byte{})
	f.Add([]byte{tableFormat + 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		read, err := decodeTable(data)
		if err != nil {
			return
		}
		now := time.Unix(1_800_000_000, 0)
		read.forget(now)
		for key := range read {
			if wait, _ := read.take(key, testLimit, 1, now); wait > testLimit.Interval+attempts.Skew {
				t.Errorf("a wait of %s", wait)
			}
		}
		if _, err := decodeTable(read.encode()); err != nil {
			t.Errorf("a table that was read cannot be read when written: %v", err)
		}
	})
}
