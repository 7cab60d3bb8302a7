// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"net/http"
	"net/url"
	"time"
)

// caller makes requests for a test. The body of what it is sent is a request as it goes
// over the wire, the parameter to says where ("http://shop.shop.svc"); the body of what
// it answers is the answer as it came. 502 means that none came, and says why.
type caller struct {
	transport http.RoundTripper
}

func newCaller() *caller {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // the test sees what was sent
	transport.ResponseHeaderTimeout = 30 * time.Second
	// A new connection for each, so that a Service spreads them over its pods.
	transport.DisableKeepAlives = true
	return &caller{transport: transport}
}

func (c *caller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		return
	case "/first":
		c.first(w, r)
		return
	}
	request, err := http.ReadRequest(bufio.NewReader(r.Body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	to, err := url.Parse(r.URL.Query().Get("to"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	request.URL.Scheme, request.URL.Host, request.RequestURI = to.Scheme, to.Host, ""
	response, err := c.transport.RoundTrip(request.WithContext(r.Context()))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close() //nolint:errcheck // written to its end
	w.Header().Set("Content-Type", "application/octet-stream")
	_ = response.Write(w)
}
