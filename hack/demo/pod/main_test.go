// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// A Service that a node has not heard of yet refuses connections.
func TestARelayWaitsForItsService(t *testing.T) {
	// An address that no outgoing connection takes a port of.
	reserved := listen(t, "127.77.0.1:0")
	to := reserved.Addr().String()
	_ = reserved.Close()
	front := listen(t, "127.0.0.1:0")
	ctx, end := context.WithCancel(t.Context())
	defer end()
	go func() { _ = relay(ctx, front, to) }()

	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // its end is of no interest
	_, _ = conn.Write([]byte("hello"))
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the relay gave up while nobody listened: %v", err)
	}
	service := listen(t, to)
	defer service.Close() //nolint:errcheck // as above
	go func() {
		if got, err := service.Accept(); err == nil {
			_, _ = io.CopyN(got, got, 5)
			_ = got.Close()
		}
	}()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if answer, err := io.ReadAll(conn); err != nil || string(answer) != "hello" {
		t.Errorf("%q %v", answer, err)
	}
}
