// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/tokenward/tokenward/internal/protocol"
)

// The limits on guessing go by the address that connects. Whoever could choose it would
// have no limit, or use up somebody else's.
func TestTheIssuerHearsTheAddressOfTheConnectionWhateverAClientSays(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var heard []http.Header
	w.issuer.set(func() {
		w.issuer.login = func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			heard = append(heard, r.Header.Clone())
			mu.Unlock()
			_ = json.NewEncoder(rw).Encode(protocol.TokenResponse{AccessToken: "x", TokenType: "Bearer", ExpiresIn: 300})
		}
	})
	const spoofed = "203.0.113.9"
	claims := map[string]http.Header{
		"nothing":           {},
		"our header":        {protocol.ClientAddressHeader: {spoofed}},
		"our header, twice": {protocol.ClientAddressHeader: {spoofed, spoofed}},
		"in another case":   {"tokenward-client-address": {spoofed}, "TOKENWARD-CLIENT-ADDRESS": {spoofed}},
		"with underscores":  {"Tokenward_Client_Address": {spoofed}},
		"empty":             {protocol.ClientAddressHeader: {""}},
		"what proxies say":  {"X-Forwarded-For": {spoofed}, "Forwarded": {"for=" + spoofed}, "X-Real-Ip": {spoofed}},
		"through the hops":  {"Connection": {protocol.ClientAddressHeader}, protocol.ClientAddressHeader: {spoofed}},
	}
	for name, claimed := range claims {
		for _, address := range []string{"127.0.0.1", "127.0.0.2"} {
			t.Run(name+" from "+address, func(t *testing.T) {
				transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext}
				defer transport.CloseIdleConnections()
				a := w.doWith(&http.Client{Transport: transport}, "POST", "/auth/token", func(r *http.Request) {
					maps.Copy(r.Header, claimed)
				}, header("Content-Type", "application/json"), body("{}"))
				mu.Lock()
				defer mu.Unlock()
				if a.Status != 200 || len(heard) != 1 {
					t.Fatalf("status %d, %d logins at the issuer: %s", a.Status, len(heard), a.Body)
				}
				if got := heard[0].Values(protocol.ClientAddressHeader); !slices.Equal(got, []string{address}) {
					t.Errorf("the issuer heard %q, want %s", got, address)
				}
				for name, values := range heard[0] {
					if slices.Contains(values, spoofed) || slices.Contains(values, "for="+spoofed) {
						t.Errorf("the issuer got the client's own %s", name)
					}
				}
				heard = nil
			})
		}
	}
}
