// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"time"
)

// NewDated is for tests of this package.
func NewDated(w http.ResponseWriter, now func() time.Time) http.ResponseWriter {
	return newDated(w, now)
}
