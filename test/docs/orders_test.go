// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"strings"
	"testing"
)

// TestAnExampleOfAnOrderIsOneWhateverWasOrderedBefore looks at the lines that people copy
// in a hurry. The value that is there already is no new order, and what came of the one
// before would answer the wait.
func TestAnExampleOfAnOrderIsOneWhateverWasOrderedBefore(t *testing.T) {
	const page = "docs/operations.md"
	subjects, all := 0, 0
	for _, block := range blocks(t, page, "sh") {
		if before, _, found := strings.Cut(block.text, "tokenward.io/revoke-subject=alice"); found {
			subjects++
			taken, _, ok := strings.Cut(before, "\nuntil ")
			if !ok || !strings.Contains(taken, "tokenward.io/revoke-subject-") {
				t.Errorf("%s: a subject is ordered without taking the order before away and waiting until it is:\n%s", page, block.text)
			}
		}
		if _, after, found := strings.Cut(block.text, "tokenward.io/revoke-all="); found {
			all++
			value, state := strings.Index(after, `"RevokeAll")].value}`), strings.Index(after, `"RevokeAll")].state}`)
			if value < 0 || state < value {
				t.Errorf("%s: the wait for Completed is not for this order's value first:\n%s", page, block.text)
			}
		}
	}
	if subjects == 0 || all == 0 {
		t.Errorf("%s shows %d orders of a subject and %d of everybody", page, subjects, all)
	}
}
