// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"os"
)

// seen is what the application answers: what reached it. It checks nothing.
type seen struct {
	Pod    string      `json:"pod"`
	Method string      `json:"method"`
	Path   string      `json:"path"`
	Header http.Header `json:"header"`
}

func answer(w http.ResponseWriter, r *http.Request) {
	host, err := os.Hostname()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(seen{Pod: host, Method: r.Method, Path: r.URL.Path, Header: r.Header})
}
