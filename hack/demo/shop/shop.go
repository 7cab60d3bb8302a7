// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package shop is the application of the demo. It knows nothing of Tokenward and checks
// nothing: it answers what reached it.
package shop

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
)

// Seen is what the application answers.
type Seen struct {
	Path string `json:"path"`
	// User is the header X-User-Id.
	User string `json:"user,omitempty"`
	// Generation is the claim "gen" of the token in Authorization: it tells one
	// token of a session from the next without printing tokens.
	Generation *int64 `json:"tokenGeneration,omitempty"`
	// Pod is the one that answers, where there are pods.
	Pod string `json:"pod,omitempty"`
}

// Answer is the [http.HandlerFunc] of every path.
func Answer(w http.ResponseWriter, r *http.Request) {
	reply := Seen{Path: r.URL.Path, User: r.Header.Get("X-User-Id"), Pod: os.Getenv("POD_NAME")}
	if raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		reply.Generation = generationOf(raw)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply)
}

// generationOf reads "gen" without checking anything: that was the sidecar's job.
func generationOf(raw string) *int64 {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	var claims struct {
		Generation *int64 `json:"gen"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return nil
	}
	return claims.Generation
}
