// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/tokenward/tokenward/internal/settings"
)

// BenchmarkRequest is a whole request over loopback with client, sidecar and
// application in one process: what the sidecar adds is the difference to "direct".
func BenchmarkRequest(b *testing.B) {
	w := newWorld(b, func(s *settings.Settings) { s.Refresh.Early = 0 })
	w.backend.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, `{"status":"ok"}`)
	})
	raw := w.signer.token()
	for name, target := range map[string]string{"direct": w.backend.server.URL + "/x", "anonymous": w.url + "/public", "remembered": w.url + "/x"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, target, nil)
				if err != nil {
					b.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+raw)
				res, err := w.client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode != http.StatusOK {
					b.Fatal(res.Status)
				}
			}
		})
	}
}
