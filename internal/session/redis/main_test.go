// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain finds what a closed store leaves running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
