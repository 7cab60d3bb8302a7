// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// attempt is what came of a request, and of how many after it in the same way.
type attempt struct {
	// Status is 0 when there was no answer, and Failure says why.
	Status  int    `json:"status,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Body is of the first one.
	Body  string `json:"body,omitempty"`
	Count int    `json:"count"`
}

// first asks the same of ?to= again and again, without a pause to speak of, from before
// anybody answers, and ends after ?answers= answers. What it says is all that came, in
// order: so a test sees the very first answer that a pod gave.
func (c *caller) first(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	answers, err := strconv.Atoi(query.Get("answers"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var attempts []attempt
	ticker := time.NewTicker(20 * time.Millisecond) // leaves the processor to the pod that is starting
	defer ticker.Stop()
	for answers > 0 {
		select {
		case <-r.Context().Done():
			return
		case <-ticker.C:
		}
		made := c.attempt(r, query.Get("to"))
		if made.Status != 0 {
			answers--
		}
		if last := len(attempts) - 1; last >= 0 && attempts[last].Status == made.Status && attempts[last].Body == made.Body {
			attempts[last].Count++
		} else {
			attempts = append(attempts, made)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(attempts)
}

func (c *caller) attempt(r *http.Request, to string) attempt {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, to, http.NoBody) //nolint:gosec // the test says where
	if err != nil {
		return attempt{Failure: err.Error(), Count: 1}
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return attempt{Failure: err.Error(), Count: 1}
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return attempt{Failure: fmt.Sprintf("read the answer: %v", err), Count: 1}
	}
	return attempt{Status: response.StatusCode, Body: string(body), Count: 1}
}
