// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"time"
)

// dated has answers say when they were made by the issuer's clock, not by that of the
// standard library: what sidecars say in protocol.SentAtHeader goes by it.
type dated struct {
	http.ResponseWriter
	now func() time.Time
}

func newDated(w http.ResponseWriter, now func() time.Time) *dated {
	d := &dated{ResponseWriter: w, now: now}
	d.date() // for answers that begin by being flushed
	return d
}

func (d *dated) date() { d.Header().Set("Date", d.now().UTC().Format(http.TimeFormat)) }

// WriteHeader implements [http.ResponseWriter].
func (d *dated) WriteHeader(status int) {
	d.date()
	d.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (d *dated) Unwrap() http.ResponseWriter { return d.ResponseWriter }
