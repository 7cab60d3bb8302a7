// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
	"encoding/binary"
	"net"
	"runtime"
	"strconv"
	"testing"
)

// message of the server (PostgreSQL documentation, "Message Formats").
func message(kind byte, announced int, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(announced+4)), body...)
}

// A tenant names the server, and the issuer serves all tenants.
func TestAServerThatSendsTooMuchDoesNotTakeTheMemory(t *testing.T) {
	filler := string(bytes.Repeat([]byte("x"), 60_000))
	for name, next := range map[string]func(n int) []byte{
		"a message as long as any": func(int) []byte { return message('E', 900_000_000, filler) },
		"settings without an end": func(n int) []byte {
			setting := strconv.Itoa(n) + "\x00" + filler + "\x00"
			return message('S', len(setting), setting)
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{URL: Secret("postgres://user:password@" + hostile(t, next) + "/database?sslmode=disable")}
			database := open(t, config)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := database.Check(t.Context()); err == nil {
				t.Error("it is taken for a database")
			}
			runtime.ReadMemStats(&after)
			if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 256 {
				t.Errorf("it took %d MiB", took)
			}
		})
	}
}

// hostile sends one thing after the other to whoever connects.
func hostile(t *testing.T, next func(n int) []byte) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, err := conn.Read(make([]byte, 4096))
				_, _ = conn.Write(message('R', 4, "\x00\x00\x00\x00")) // it lets everybody in
				for n := 0; err == nil; n++ {
					_, err = conn.Write(next(n))
				}
			}()
		}
	}()
	return listener.Addr().String()
}
