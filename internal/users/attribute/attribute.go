// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package attribute owns what an attribute of a user may be, whichever source it is
// from: a string, a boolean, a number or a short list of these, and never a hash.
package attribute

import (
	"encoding/json"

	"github.com/tokenward/tokenward/internal/users/password"
)

const (
	// Most is how many attributes a user may have.
	Most = 64
	// MostItems is how long a list may be.
	MostItems = 64
)

// Valid says whether the value is a string, bool, [json.Number] or a list of at most
// [MostItems] of these.
func Valid(value any) bool {
	list, ok := value.([]any)
	if !ok {
		return scalar(value)
	}
	for _, item := range list {
		if !scalar(item) {
			return false
		}
	}
	return len(list) <= MostItems
}

func scalar(value any) bool {
	switch value.(type) {
	case string, bool, json.Number:
		return true
	}
	return false
}

// Secret says whether the value is a password's hash, or a list with one in it. Such
// a value never leaves a source, whatever the attribute is called.
func Secret(value any) bool {
	switch v := value.(type) {
	case string:
		return password.LooksLikeHash(v)
	case []any:
		for _, item := range v {
			if text, ok := item.(string); ok && password.LooksLikeHash(text) {
				return true
			}
		}
	}
	return false
}
