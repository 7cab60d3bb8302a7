// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"net/http"
	"strings"
	"sync"
)

// Keeper is a transport that sends the newest token that it has seen.
type Keeper struct {
	Base http.RoundTripper

	mu    sync.Mutex
	token string
}

// Set takes the token of a login.
func (k *Keeper) Set(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.token = token
}

// RoundTrip implements http.RoundTripper.
func (k *Keeper) RoundTrip(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	sent := k.token
	k.mu.Unlock()
	r = r.Clone(r.Context()) // a transport must not change the caller's request
	r.Header.Set("Authorization", "Bearer "+sent)
	response, err := k.Base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if returned, ok := strings.CutPrefix(response.Header.Get("Authorization"), "Bearer "); ok {
		k.mu.Lock()
		if k.token == sent {
			k.token = returned
		}
		k.mu.Unlock()
	}
	return response, nil
}
