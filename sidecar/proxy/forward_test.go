// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// An application that closes its quiet connections after two seconds, as some do, then
// never closes one that a request is being sent on.
func TestTheApplicationDoesNotCloseConnectionsFirst(t *testing.T) {
	ends := make(chan http.ConnState, 8)
	application := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	application.Config.ConnState = func(_ net.Conn, state http.ConnState) { ends <- state }
	application.Start()
	defer application.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, application.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http1Transport(application.Listener.Addr().String()).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	timeout := time.After(30 * time.Second)
	for _, want := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateClosed} {
		select {
		case got := <-ends:
			if got != want {
				t.Fatalf("the connection became %s, want %s", got, want)
			}
		case <-timeout:
			t.Fatalf("the connection is not %s: the application would have to close it", want)
		}
	}
}
