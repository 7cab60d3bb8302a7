// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package password

import (
	"runtime"
	"testing"
)

// On a node with many cores the memory of a container ends long before its cores do.
func TestALargeMachineDoesNotHashMoreThanFitsIntoTheContainer(t *testing.T) {
	before := runtime.GOMAXPROCS(64)
	defer runtime.GOMAXPROCS(before)
	const room = 512 << 10 // KiB: the limit of the issuer's Deployment, less what all else takes
	if worst := cap(NewPool(0, 0, nil).slots) * MaxMemoryKiB; worst > room {
		t.Errorf("64 cores may take %d MiB for hashes, there is room for %d", worst>>10, room>>10)
	}
	runtime.GOMAXPROCS(2)
	if got := cap(NewPool(0, 0, nil).slots); got != 2 {
		t.Errorf("2 cores compute %d hashes at once", got)
	}
}
