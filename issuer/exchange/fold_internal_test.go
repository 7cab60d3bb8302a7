// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"net/netip"
	"testing"
	"unicode/utf8"
)

func TestNamesThatADatabaseTakesForOneAreOneAccount(t *testing.T) {
	tests := map[string]struct {
		one, other string
		same       bool
	}{
		"case":                          {"alice", "ALICE", true},
		"case that has several letters": {"straße", "STRASSE", true},
		"a capital that comes apart":    {"i", "İ", true},
		"the two small sigmas":          {"ςσ", "ΣΣ", true},
		"space around":                  {"alice", " \talice\u00a0\u3000", true},
		"full width":                    {"alice1", "ＡＬＩＣＥ１", true},
		"ligatures":                     {"office", "oﬃce", true},
		"accents, composed or not":      {"jose", "jos\u00e9", true},
		"accents, written either way":   {"jos\u00e9", "jose\u0301", true},
		"a letter that the eye misses":  {"alice", "al\u200bi\u00adce\u0000", true},
		"an enclosed letter":            {"a", "ⓐ", true},
		"two names":                     {"alice", "alicf", false},
		"a space in between":            {"al ice", "alice", false},
		"a dot":                         {"a.lice", "alice", false},
		"another script's letter":       {"alice", "аlice", false},
		"nothing":                       {"", "  ", true},
		"numbers are not understood":    {"1", "01", false}, // the subject's allowance is for this
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if one, other := foldAccount(test.one), foldAccount(test.other); (one == other) != test.same {
				t.Errorf("%q and %q", one, other)
			}
		})
	}
}

// What is folded is folded: no second spelling of a spelling.
func FuzzFoldAccount(f *testing.F) {
	for _, seed := range []string{"alice", "İ", "ŉ", "ﬃ", "\u0345", "ᾳ", "ẞ", " \u0301x", "\u1e9b\u0323", "a\u200d b", "Å", "ǰ"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if !utf8.ValidString(id) {
			return
		}
		once := foldAccount(id)
		if twice := foldAccount(once); once != twice {
			t.Errorf("%q becomes %q and then %q", id, once, twice)
		}
	})
}

func TestWhatIsOneClient(t *testing.T) {
	tests := map[string]struct{ address, want string }{
		"IPv4":                           {"192.0.2.7", "192.0.2.7"},
		"IPv4 in IPv6's clothes":         {"::ffff:192.0.2.7", "192.0.2.7"},
		"IPv6 is its /64":                {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		"the same /64":                   {"2001:db8:1:2:ffff::", "2001:db8:1:2::/64"},
		"the next /64":                   {"2001:db8:1:3::", "2001:db8:1:3::/64"},
		"a zone is the pod's own affair": {"fe80::1%eth0", "fe80::/64"},
		"loopback":                       {"::1", "::/64"},
		"none is all who have none":      {"", "unknown"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			address, err := netip.ParseAddr(test.address)
			if err != nil && test.address != "" {
				t.Fatal(err)
			}
			if got := network(address); got != test.want {
				t.Errorf("%s is %s, want %s", test.address, got, test.want)
			}
		})
	}
}
