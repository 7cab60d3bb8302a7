// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func portOf(tb testing.TB, address string) string {
	tb.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(address, "http://"))
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

func TestTheHookEndsWhenRequestsAreChecked(t *testing.T) {
	w := newWorld(t)
	if err := waitUntilServing(t.Context(), portOf(t, w.admin)); err != nil {
		t.Fatal(err)
	}
	if a := w.do("GET", "/x"); a.Status != 403 {
		t.Errorf("status %d without a token, want 403", a.Status)
	}
}

func TestTheHookWaitsForASidecarThatStarts(t *testing.T) {
	var asked int
	starting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 || r.Method != "GET" || r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer starting.Close()
	if err := waitUntilServing(t.Context(), portOf(t, starting.URL)); err != nil {
		t.Fatal(err)
	}
	if asked != 3 {
		t.Errorf("asked %d times, want 3: until it serves", asked)
	}
}

// Without settings a pod is not ready, and its application may start all the same.
func TestTheHookDoesNotWaitForeverForASidecarThatIsNotReady(t *testing.T) {
	began := time.Now()
	notReady := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer notReady.Close()
	if err := waitUntilServing(t.Context(), portOf(t, notReady.URL)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < readyWait {
		t.Errorf("waited %s, want %s", took, readyWait)
	}
}

func TestTheHookFailsForASidecarThatNeverServes(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := waitUntilServing(ctx, portOf(t, gone.URL))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "does not serve") {
		t.Errorf("error %v", err)
	}
}

func TestFlagsAreRefusedWithNameValueAndRemedy(t *testing.T) {
	for arguments, want := range map[string]string{
		"--hook=preStart":                               `invalid value "preStart" for flag -hook: write postStart or preStop`,
		"--hook=preStop --admin-listen=18081":           `--admin-listen is "18081": write the port, for example :18081`,
		"--upstream=:8080":                              `--upstream is ":8080": write the host and port of the application, for example 127.0.0.1:8080`,
		"--upstream=127.0.0.1:8080 --drain-timeout=-1s": `--drain-timeout is -1s: write a duration of at least 0s`,
		"--upstream=127.0.0.1:8080 shop":                `argument "shop" is not expected: use flags only`,
		"--upstream=127.0.0.1:8080 --probes=x":          `invalid value "x" for flag -probes: `,
	} {
		if _, err := parseFlags(strings.Fields(arguments), io.Discard); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\nerror %v\nwant  %s", arguments, err, want)
		}
	}
	o, err := parseFlags([]string{"--hook=postStart", "--admin-listen=:18081"}, io.Discard)
	if err != nil || o.hook == nil || o.adminPort != "18081" {
		t.Errorf("postStart: hook %t, port %q, error %v", o.hook != nil, o.adminPort, err)
	}
}
