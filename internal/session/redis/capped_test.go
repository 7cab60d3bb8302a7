// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
)

// says is a connection on which a server says something, in pieces.
type says struct {
	net.Conn
	text  io.Reader
	piece int
}

func (s says) Read(p []byte) (int, error)  { return s.text.Read(p[:min(len(p), s.piece)]) }
func (s says) Write(p []byte) (int, error) { return len(p), nil }

func TestAnAnswerMayNotAnnounceOrBeMoreThanOneAboutSessions(t *testing.T) {
	session := "$600\r\n" + strings.Repeat("*", 600) + "\r\n"
	tests := map[string]struct {
		answer string
		most   bool
	}{
		"a word":                       {"+OK\r\n", false},
		"nothing":                      {"$-1\r\n*-1\r\n_\r\n", false},
		"a page of sessions":           {"*256\r\n" + strings.Repeat(session, 256), false},
		"an error that is a text":      {"!21\r\n*999999999999999999\r\n\r\n+OK\r\n", false},
		"a text that looks like more":  {"$14\r\n$4000000000\r\n\r\n+OK\r\n", false},
		"a map":                        {"%2\r\n+a\r\n:1\r\n+b\r\n#t\r\n", false},
		"a long list":                  {"*300000000\r\n", true},
		"a list longer than any":       {"*9223372036854775807\r\n", true},
		"a large map":                  {"%200000\r\n", true},
		"many lists":                   {strings.Repeat("*1000\r\n", 300), true},
		"lists within lists":           {strings.Repeat("*1\r\n", 300_000), true},
		"a long text":                  {"$1500000000\r\n", true},
		"a word without an end":        {"+" + strings.Repeat("x", maxAnswer), true},
		"more texts than can be":       {strings.Repeat("$1000000\r\n"+strings.Repeat("x", 1_000_000)+"\r\n", 9), true},
		"a length of another notation": {"$-0\r\n", true},
		"a length with a sign":         {"$+5\r\n", true},
		"a length that has no end":     {"$" + strings.Repeat("0", 40) + "5\r\n", true},
		"a text of unknown length":     {"$?\r\n", true},
	}
	for name, test := range tests {
		for _, piece := range []int{1, 7, 4096} {
			if piece < 4096 && len(test.answer) > 1<<16 {
				continue // it takes long, and shows nothing else
			}
			t.Run(name, func(t *testing.T) {
				conn := newCapped(says{text: strings.NewReader(test.answer), piece: piece})
				got, err := io.ReadAll(conn)
				if test.most != errors.Is(err, errTooMuch) || !test.most && (err != nil || string(got) != test.answer) {
					t.Errorf("in pieces of %d: %d bytes, %v", piece, len(got), err)
				}
			})
		}
	}
}

func TestEachQuestionMayHaveAnAnswer(t *testing.T) {
	answer := []byte("*200000\r\n$4000000\r\n" + strings.Repeat("x", 4_000_000) + "\r\n")
	conn := newCapped(says{text: bytes.NewReader(bytes.Repeat(answer, 5)), piece: len(answer)})
	for range 5 {
		if _, err := conn.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, len(answer))); err != nil {
			t.Fatal(err)
		}
	}
}

// A tenant names the server, and the issuer serves all tenants.
func TestAServerThatSendsTooMuchDoesNotTakeTheMemory(t *testing.T) {
	for name, answer := range map[string]string{"a long list": "*300000000\r\n", "a word without an end": ""} {
		t.Run(name, func(t *testing.T) {
			store, err := New(Options{Policy: "policy", Addresses: []string{hostile(t, answer)}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = store.Close() }()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := store.Check(t.Context()); err == nil {
				t.Error("it is taken for a store")
			}
			runtime.ReadMemStats(&after)
			if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 256 {
				t.Errorf("it took %d MiB", took)
			}
		})
	}
}

// hostile gives this answer to whatever it is asked, or one that never ends.
func hostile(t *testing.T, answer string) (address string) {
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
				if _, err := conn.Read(make([]byte, 4096)); err != nil {
					return
				}
				if answer != "" {
					_, _ = io.WriteString(conn, answer)  // the issuer may have hung up
					_, _ = conn.Read(make([]byte, 4096)) // it stays until then
					return
				}
				for _, err := io.WriteString(conn, "+"); err == nil; {
					_, err = conn.Write(bytes.Repeat([]byte("x"), 1<<20))
				}
			}()
		}
	}()
	return listener.Addr().String()
}
