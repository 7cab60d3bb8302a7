// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package reload

import "github.com/tokenward/tokenward/internal/token"

// keyrings picks the key set in force out of those that the file and the issuer have
// shown. It is a value: a copy is a snapshot.
//
//	file names another owner → that owner, with the best version seen of it
//	file shows an old version → its owner's best version stays
//	issuer shows a newer version → in force
//	issuer shows another owner → in force, until the file names one: the issuer hears
//	  of a new signing key first. Not so for the owner that the file has left: that
//	  answer is older than the file.
type keyrings struct {
	current  *token.KeySet // in force
	filed    *token.KeySet // the newest of the file's owner that the file has shown
	left     string        // the owner that the file named before
	previous *token.KeySet // the newest seen of the owner in force before
}

func (k *keyrings) effective() *token.KeySet { return k.current }

// file notes what a file holds.
func (k *keyrings) file(keys *token.KeySet) {
	switch {
	case k.filed == nil:
		k.take(keys)
	case k.filed.Owner() != keys.Owner():
		k.left = k.filed.Owner()
		k.take(keys)
	case k.current.Owner() == keys.Owner():
		k.take(keys)
	default:
		// The issuer is ahead with another owner, and the file has not moved.
	}
	if k.filed == nil || keys.Supersedes(k.filed) {
		k.filed = keys
	}
}

// offer notes what the issuer holds; true means that the set in force changed.
func (k *keyrings) offer(keys *token.KeySet) bool {
	if keys.Owner() != k.filed.Owner() && keys.Owner() == k.left {
		return false
	}
	before := k.current
	k.take(keys)
	return k.current != before
}

// take puts keys in force, or the newest known of the same owner.
func (k *keyrings) take(keys *token.KeySet) {
	if k.current != nil && k.current.Owner() == keys.Owner() {
		if keys.Supersedes(k.current) {
			k.current = keys
		}
		return
	}
	if k.previous != nil && k.previous.Owner() == keys.Owner() && !keys.Supersedes(k.previous) {
		keys = k.previous
	}
	k.previous, k.current = k.current, keys
}
