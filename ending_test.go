// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallersOfTheWebhookAreSentElsewhereBeforeItEnds(t *testing.T) {
	leaving := make(chan struct{})
	server := httptest.NewUnstartedServer(sendingAway(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), leaving))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	kept := func() bool {
		t.Helper()
		var reused bool
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
			t.Fatalf("%s with status %d, want an answer over HTTP/2", response.Proto, response.StatusCode)
		}
		return reused
	}
	kept()
	for range 3 {
		if !kept() {
			t.Fatal("a connection is not kept although nothing ends")
		}
	}
	close(leaving)
	// The client hears of it with an answer, or a moment after that one.
	for deadline := time.Now().Add(10 * time.Second); kept(); {
		if time.Now().After(deadline) {
			t.Fatal("the connection is kept although the process ends")
		}
	}
}

func TestTheManagerEndsAMomentAfterItsSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signal, stop := context.WithCancel(t.Context())
		late := endLater(signal, parting)
		stop()
		time.Sleep(parting - time.Millisecond)
		if late.Err() != nil {
			t.Error("it ended before callers were sent elsewhere")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if late.Err() == nil {
			t.Error("it goes on")
		}
	})
}
