// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// maxQuoted bounds what a message repeats of a pod, in bytes. The pod has not
	// been validated yet: names and values may have any length.
	maxQuoted = 64
	// maxListed bounds the lists in a message.
	maxListed = 8
)

// refuse makes a refusal of a format and its arguments.
func refuse(verdict Verdict, format string, args ...any) *Refusal {
	return &Refusal{Verdict: verdict, Message: fmt.Sprintf(format, args...)}
}

// quote repeats what the user wrote, bounded and without control characters.
func quote(value string) string {
	if len(value) > maxQuoted {
		return strconv.Quote(value[:maxQuoted]) + "…"
	}
	return strconv.Quote(value)
}

// list joins words as "a, b or c".
func list(words []string) string {
	more := ""
	if len(words) > maxListed {
		more = fmt.Sprintf(" or one of %d more", len(words)-maxListed)
		words = words[:maxListed]
	}
	if len(words) < 2 || more != "" {
		return strings.Join(words, ", ") + more
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// nearest is the candidate that value was probably meant to be: the one with the
// fewest edits, if these are few for its length. The first of equals wins.
func nearest(value string, candidates []string) (string, bool) {
	if len(value) > maxQuoted {
		return "", false
	}
	best, fewest := "", len(value)
	for _, candidate := range candidates {
		if len(candidate) > 2*maxQuoted {
			continue
		}
		if d := edits(value, candidate); d < fewest && d <= max(2, len(candidate)/3) {
			best, fewest = candidate, d
		}
	}
	return best, best != ""
}

// edits counts the insertions, deletions and replacements between a and b (Levenshtein).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
