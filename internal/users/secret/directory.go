// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/tokenward/tokenward/internal/users/password"
)

// directory is one version of the Secret, understood. It is immutable.
type directory struct {
	entries map[string]entry
	// decoy is what a login is checked against when there is no entry to check: for
	// each field a proof of the kind and cost that is the most common in the Secret.
	decoy []proof
	// broken entries by key, sorted.
	broken []Broken
	// disabled counts the users who are, among the entries that are not broken.
	disabled int
}

// Broken is a user who cannot log in because the entry is not what it must be.
type Broken struct {
	// Key of the Secret: the user's id.
	Key string
	// Reason says what to mend. It quotes no value.
	Reason string
}

func newDirectory(data map[string][]byte, fields []string) *directory {
	d := &directory{entries: make(map[string]entry, len(data))}
	for key, value := range data {
		d.entries[key] = parseEntry(value, fields)
	}
	for _, key := range slices.Sorted(maps.Keys(d.entries)) {
		if err := d.entries[key].broken(); err != nil {
			d.broken = append(d.broken, Broken{Key: key, Reason: err.Error()})
		} else if d.entries[key].disabled {
			d.disabled++
		}
	}
	for i, field := range fields {
		d.decoy = append(d.decoy, d.decoyFor(i, field))
	}
	return d
}

func (d *directory) decoyFor(i int, field string) proof {
	costs := map[password.Cost]int{}
	plain := 0
	for _, e := range d.entries {
		switch {
		case e.broken() != nil:
		case e.proofs[i].hashed:
			costs[e.proofs[i].hash.Cost()]++
		default:
			plain++
		}
	}
	best, most := password.DefaultCost(), 0
	for cost, count := range costs {
		if count > most || count == most && best.Less(cost) {
			best, most = cost, count
		}
	}
	if most < plain || most == 0 && field != passwordAttribute {
		return proof{digest: sha256.Sum256(nil)}
	}
	return proof{hash: password.Dummy(best), hashed: true}
}
