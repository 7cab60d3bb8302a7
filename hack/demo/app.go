// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"time"
)

// seen is what the application answers: what reached it. It knows nothing of
// Tokenward and checks nothing.
type seen struct {
	Path string `json:"path"`
	// User is the header X-User-Id.
	User string `json:"user,omitempty"`
	// Generation is the claim "gen" of the token in Authorization: it tells one
	// token of a session from the next without printing tokens.
	Generation *int64 `json:"tokenGeneration,omitempty"`
}

// startApp serves the application on addr until ctx ends.
func startApp(ctx context.Context, addr string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(answer)}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

func answer(w http.ResponseWriter, r *http.Request) {
	reply := seen{Path: r.URL.Path, User: r.Header.Get("X-User-Id")}
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
