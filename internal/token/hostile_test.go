// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"maps"
	"runtime"
	"strings"
	"testing"
)

// hostileTokens are made to cost as much as possible before the signature is checked.
func hostileTokens(tb testing.TB) map[string]string {
	tb.Helper()
	key := keyFor(tb, ES256)
	fill := func(unit string) string { return strings.Repeat(unit, 5800/len(unit)) }
	header := func(x string) string {
		return encodeBase64([]byte(strings.TrimSuffix(headerOf(key), "}")+`,"x":`+x+"}")) + ".e30.AA"
	}
	var names strings.Builder
	for i := range 1000 {
		names.WriteString(`,"` + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + `":0`)
	}
	return map[string]string{
		"a megabyte of dots":             strings.Repeat(".", 1<<20),
		"8 KiB of dots":                  strings.Repeat(".", MaxLength),
		"a megabyte of one part":         strings.Repeat("A", 1<<20),
		"a header nested without end":    header(fill("[")),
		"a header of empty arrays":       header("[" + fill("[],") + "[]]"),
		"a header of small numbers":      header("[" + fill("0,") + "0]"),
		"a header of escapes":            header(`"` + fill(`\u0041`) + `"`),
		"a header with a thousand names": encodeBase64([]byte(`{"alg":"ES256"`+names.String()+"}")) + ".e30.AA",
		"a header of objects in objects": header(fill(`{"a":`)),
	}
}

// Splitting at every dot was CVE-2025-30204.
func TestAHostileTokenCausesOnlyBoundedWork(t *testing.T) {
	v := verifierFor(t, keyFor(t, ES256))
	// The worst of them has a few hundred values in its header before the limit is met.
	const maxAllocs, maxBytes = 600, 96 << 10
	for name, raw := range maps.All(hostileTokens(t)) {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			const runs = 20
			runtime.ReadMemStats(&before)
			for range runs {
				if _, err := v.Verify(raw, now); err == nil {
					t.Fatal("accepted")
				}
			}
			runtime.ReadMemStats(&after)
			if got := (after.Mallocs - before.Mallocs) / runs; got > maxAllocs {
				t.Errorf("%d allocations, want at most %d", got, maxAllocs)
			}
			if got := (after.TotalAlloc - before.TotalAlloc) / runs; got > maxBytes {
				t.Errorf("%d bytes allocated, want at most %d", got, maxBytes)
			}
		})
	}
}

func TestATokenOfTheWrongFormIsRefusedWithoutReadingIt(t *testing.T) {
	v := verifierFor(t, keyFor(t, ES256))
	for _, raw := range []string{
		strings.Repeat(".", 1<<20), strings.Repeat(".", MaxLength), strings.Repeat("A", 1<<20), "AA" + strings.Repeat(".AA", 2000),
	} {
		allocs := testing.AllocsPerRun(100, func() { _, _ = v.Verify(raw, now) })
		// The error alone.
		if allocs > 1 {
			t.Errorf("%d bytes: %v allocations, want 1 at most", len(raw), allocs)
		}
	}
}

func TestTheLengthOfATokenIsBoundedToTheByte(t *testing.T) {
	key := keyFor(t, EdDSA)
	v := verifierFor(t, key)
	seen := map[bool]bool{}
	for fill := range 1000 {
		filled := strings.TrimSuffix(payload, "}") + `,"x":"` + strings.Repeat("x", 5300+fill) + `"}`
		raw := forge(t, key, headerOf(key), filled)
		_, err := v.Verify(raw, now)
		fits := len(raw) <= 8192
		if fits && err != nil {
			t.Fatalf("%d bytes: %v", len(raw), err)
		}
		if !fits {
			wantReason(t, err, TokenTooLarge)
		}
		seen[fits] = true
		if len(raw) > 8200 {
			break
		}
	}
	if len(seen) != 2 {
		t.Error("the lengths do not lie around the bound")
	}
}
