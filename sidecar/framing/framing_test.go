// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package framing

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAHeadThatDoesNotEndIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer func() { _ = client.Close() }()
		c := NewConn(server, 10*time.Second)
		defer func() { _ = c.Close() }()
		began := time.Now()
		go func() {
			_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT")
		}()
		head := make([]byte, 27)
		if _, err := io.ReadFull(c, head[:len("GET / HTTP/1.1\r\nHost: a\r\n\r\n")]); err != nil {
			t.Fatal(err)
		}
		// The server would wait this long for a connection that is idle.
		if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(make([]byte, 4096))
		if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
			t.Fatalf("error %v, want a timeout", err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Fatalf("cut off after %s", took)
		}
	})
}

func TestAnIdleConnectionIsNotCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer func() { _ = client.Close() }()
		c := NewConn(server, 10*time.Second)
		defer func() { _ = c.Close() }()
		go func() {
			for range 2 {
				time.Sleep(time.Minute)
				_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			}
		}()
		for range 2 {
			if _, err := io.ReadFull(c, make([]byte, 27)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// pieces gives a connection its bytes in pieces.
type pieces struct {
	net.Conn
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(p.size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) SetReadDeadline(time.Time) error  { return nil }
func (p *pieces) SetWriteDeadline(time.Time) error { return nil }
func (p *pieces) Close() error                     { return nil }

// through reads all that a connection passes on.
func through(data []byte, size int) (string, *Conn) {
	c := NewConn(&pieces{data: data, size: size}, 0)
	out, _ := io.ReadAll(c)
	return string(out), c
}

// FuzzConn: what is passed on is a prefix of what came, with at most our own request
// behind it; net/http reads exactly as many requests in it as heads were passed; and
// the size of the pieces makes no difference.
func FuzzConn(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		preface + "\x00\x00\x00\x04",
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		size = max(1, size%4096)
		whole, c := through(bytes.Clone(data), 1<<20)
		if split, _ := through(bytes.Clone(data), size); split != whole {
			t.Fatalf("in pieces of %d:\n%q\nwhole:\n%q", size, split, whole)
		}
		passed, _ := strings.CutSuffix(whole, refused)
		if !bytes.HasPrefix(data, []byte(passed)) && !bytes.HasPrefix(data, []byte(whole)) {
			t.Fatalf("what came out did not come in: %q", whole)
		}
		if strings.HasPrefix(passed, preface) || c.scan.state == atUpgrade {
			return
		}
		r := bufio.NewReader(strings.NewReader(whole))
		for i := 0; ; i++ {
			req, err := http.ReadRequest(r)
			if err != nil {
				if len(c.heads) != i {
					t.Fatalf("net/http reads %d requests, %d heads were passed on in %q: %v", i, len(c.heads), whole, err)
				}
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				if len(c.heads) != i+1 {
					t.Fatalf("net/http stops in the body of request %d, %d heads were passed on in %q: %v", i, len(c.heads), whole, err)
				}
				return
			}
		}
	})
}

func TestBodiesAreReadWithoutCopyingThem(t *testing.T) {
	body := strings.Repeat("x", 1<<20)
	data := []byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n" + body)
	c := NewConn(&pieces{data: data, size: 1 << 20}, 0)
	out, err := io.ReadAll(c)
	if err != nil || len(out) != len(data) {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	if cap(c.buf) > inPlace {
		t.Fatalf("the connection holds a buffer of %d bytes", cap(c.buf))
	}
}

func BenchmarkCheckHead(b *testing.B) {
	head := []byte("GET /api/v1/orders/12345?page=2 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nAuthorization: Bearer " + strings.Repeat("a", 407) + "\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CheckHead(head); err != nil {
			b.Fatal(err)
		}
	}
}

func TestARequestHasBegunAsSoonAsItsFirstByteHasCome(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // only listened
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // only sent to
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(server, time.Minute)
	defer c.Close() //nolint:errcheck // only read from
	if c.Begun() {
		t.Error("a request has begun before a byte has come")
	}
	send := func(text string) {
		t.Helper()
		if _, err := io.WriteString(client, text); err != nil {
			t.Fatal(err)
		}
	}
	send("G")
	for deadline := time.Now().Add(10 * time.Second); !c.Begun(); { // the kernel's own time
		if time.Now().After(deadline) {
			t.Fatal("a byte has come that nobody has read, and no request has begun")
		}
	}
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	if !c.Begun() {
		t.Error("a request whose head was read in part has not begun")
	}
	send("ET / HTTP/1.1\r\nHost: shop\r\n\r\n")
	if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
		t.Fatal(err)
	}
	if !c.Begun() {
		t.Error("a request that no handler has yet has not begun")
	}
	if err := c.NextHead(); err != nil {
		t.Fatal(err)
	}
	if c.Begun() {
		t.Error("a request has begun after a handler took the last one")
	}
}
