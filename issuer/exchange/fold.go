// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"net/netip"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// foldAccount makes one name of those that databases take for one account: case, width,
// accents, invisible characters and surrounding space do not count. It goes further
// than any one database, because two accounts that share an allowance are no harm, and
// one account with two allowances is. What it does not know, for example that a user
// has an id and an address of mail, is up to the allowance of the subject.
func foldAccount(id string) string {
	// Folding the case of a bare letter makes none with a mark, but may make letters
	// that come apart.
	return strings.TrimSpace(bare(cases.Fold().String(bare(id))))
}

// bare takes text apart (NFKD, which also folds width) and leaves out what does not
// take up room of its own.
func bare(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cc, unicode.Cf) {
			return -1
		}
		return r
	}, norm.NFKD.String(text))
}

// network is what counts as one client: an IPv4 address, or the /64 that is the
// smallest that an IPv6 site gets. All clients without an address are one.
func network(from netip.Addr) string {
	from = from.Unmap().WithZone("")
	switch {
	case !from.IsValid():
		return "unknown"
	case from.Is4():
		return from.String()
	}
	return netip.PrefixFrom(from, 64).Masked().String()
}
