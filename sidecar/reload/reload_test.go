// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"testing"

	"github.com/tokenward/tokenward/internal/token"
)

func set(t *testing.T, owner string, version int64) *token.KeySet {
	t.Helper()
	s, err := token.NewKeySet(owner, version, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestKeysOnlyMoveForward walks through what file and issuer may show in turn.
func TestKeysOnlyMoveForward(t *testing.T) {
	type step struct {
		from    string // file or issuer
		owner   string
		version int64
		want    string // owner in force
		wantVer int64
	}
	tests := map[string][]step{
		"the file moves on":                            {{"file", "a", 1, "a", 1}, {"file", "a", 2, "a", 2}},
		"an older file is ignored":                     {{"file", "a", 5, "a", 5}, {"file", "a", 4, "a", 5}, {"file", "a", 6, "a", 6}},
		"the issuer is ahead of a late file":           {{"file", "a", 1, "a", 1}, {"issuer", "a", 3, "a", 3}, {"file", "a", 2, "a", 3}, {"file", "a", 4, "a", 4}},
		"an issuer that is behind is ignored":          {{"file", "a", 4, "a", 4}, {"issuer", "a", 3, "a", 4}},
		"the file names another owner":                 {{"file", "a", 9, "a", 9}, {"file", "b", 1, "b", 1}},
		"the issuer hears of another owner first":      {{"file", "a", 9, "a", 9}, {"issuer", "b", 1, "b", 1}, {"file", "a", 10, "b", 1}, {"file", "b", 2, "b", 2}},
		"an issuer that still has the owner of before": {{"file", "a", 9, "a", 9}, {"file", "b", 1, "b", 1}, {"issuer", "a", 10, "b", 1}},
		"back to the owner of before, at its best":     {{"file", "a", 9, "a", 9}, {"file", "b", 1, "b", 1}, {"file", "a", 8, "a", 9}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			var k keyrings
			for i, s := range steps {
				if s.from == "file" {
					k.file(set(t, s.owner, s.version))
				} else {
					before := k.effective()
					if changed := k.offer(set(t, s.owner, s.version)); changed != (k.effective() != before) {
						t.Errorf("step %d: offer says %v", i, changed)
					}
				}
				if got := k.effective(); got.Owner() != s.want || got.Version() != s.wantVer {
					t.Fatalf("step %d: %s %d is in force, want %s %d", i, got.Owner(), got.Version(), s.want, s.wantVer)
				}
			}
		})
	}
}
