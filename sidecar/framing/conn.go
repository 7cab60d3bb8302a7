// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package framing

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// refused stands in for a head that was refused: it makes the server call its
// handler, and close.
const refused = "GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n"

const (
	// maxEarly bounds what a client sends before its upgrade is agreed to, in bytes.
	maxEarly = 4 << 10
	// inPlace is from which size on the caller's buffer is fit for a head. Servers read
	// with 4 KiB between requests, and with one byte to notice that a client has gone.
	inPlace = 512
	// lingerTime and lingerBytes bound the polite end of a refused connection: a
	// close with unread bytes resets it, and the client would lose the answer.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// Listener hands out a [Conn] for each connection.
type Listener struct {
	net.Listener
	// HeadTimeout bounds the time from the first byte of a head to its last.
	HeadTimeout time.Duration
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return NewConn(c, l.HeadTimeout), nil
}

// Conn is a connection whose reader sees well-formed framing only. Read is for one
// goroutine at a time, as the server uses it; the rest is safe for concurrent use.
type Conn struct {
	net.Conn
	headTimeout time.Duration

	// Of the reader alone.
	scan    scanner
	pending []byte // read and not looked at, or not complete
	ready   []byte // looked at, to be passed on: a prefix of pending's memory, or refused
	readErr error  // after ready
	buf     []byte

	finished atomic.Bool
	mu       sync.Mutex
	heads    []*Error // of heads that the reader passed on and NextHead did not fetch
	bodyErr  *Error
	upgraded bool
	outer    time.Time // the server's read deadline
	headEnds time.Time // ours, while a head is incomplete; zero otherwise
	rejected bool
}

// NewConn wraps a connection that nothing has been read from.
func NewConn(c net.Conn, headTimeout time.Duration) *Conn {
	return &Conn{Conn: c, headTimeout: headTimeout}
}

// NextHead says whether the head of the request that a handler now has was
// refused. A handler calls it exactly once for each HTTP/1.x request.
func (c *Conn) NextHead() *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.heads) == 0 {
		return malformed("a request without a head of its own")
	}
	err := c.heads[0]
	c.heads = c.heads[1:]
	return err
}

// BodyError is what was wrong with the framing of a body, nil if nothing was.
func (c *Conn) BodyError() *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bodyErr
}

// Release ends the checks: the protocol was upgraded, and what the client has sent
// since the head, and sends from now on, belongs to the new protocol.
func (c *Conn) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.upgraded = true
}

// Finish ends the reading, a read that waits included: nobody wants the rest of the
// body. The connection can carry no further request, and ends after the answer.
func (c *Conn) Finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished.Store(true)
	c.rejected = true
	c.applyDeadline()
}

// Read passes on what has been checked.
func (c *Conn) Read(p []byte) (int, error) {
	if c.finished.Load() {
		return 0, io.EOF
	}
	n, err := c.read(p)
	if n == 0 && err != nil && c.finished.Load() {
		err = io.EOF
	}
	return n, err
}

func (c *Conn) read(p []byte) (int, error) {
	for {
		if len(c.ready) > 0 {
			n := copy(p, c.ready)
			c.ready = c.ready[n:]
			return n, nil
		}
		if c.readErr != nil && c.scan.state != atUpgrade {
			return 0, c.readErr
		}
		c.noteRelease()
		if n, ok, err := c.readThrough(p); ok {
			return n, err
		}
		if len(c.ready) > 0 || len(c.pending) > 0 && c.advance() {
			continue
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
}

// noteRelease takes the connection out of the reader's hands after an upgrade.
func (c *Conn) noteRelease() {
	if c.scan.state != atUpgrade {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.upgraded {
		c.scan.state = opaque
	}
}

// readThrough reads a body or an opaque protocol straight into the caller's buffer.
func (c *Conn) readThrough(p []byte) (n int, ok bool, err error) {
	if len(c.pending) > 0 {
		return 0, false, nil
	}
	switch c.scan.state {
	case opaque:
		c.buf = nil
		n, err = c.Conn.Read(p)
		return n, true, err
	case inBody:
		n, err = c.Conn.Read(p[:min(int64(len(p)), c.scan.remaining)])
		c.scan.consume(n)
		return n, true, err
	case inHead:
		return c.readInPlace(p)
	default:
		return 0, false, nil
	}
}

// readInPlace looks at a head in the caller's buffer. That is the common case, a whole
// head in one packet, and an idle connection then holds no buffer of its own.
func (c *Conn) readInPlace(p []byte) (n int, ok bool, err error) {
	if len(p) < inPlace {
		return 0, false, nil
	}
	// An error that comes with bytes comes again without them.
	if n, err = c.Conn.Read(p); n == 0 {
		return 0, true, err
	}
	// What is not passed on in this call is kept, and the caller's buffer is its own again.
	c.pending = p[:n]
	advanced := c.advance()
	c.pending = bytes.Clone(c.pending)
	switch {
	case c.readErr != nil:
		// Refused: what to pass on is in ready, and not in p.
		return 0, false, nil //nolint:nilerr // Read goes on to ready and readErr
	case advanced:
		n = len(c.ready)
		c.ready = nil
		return n, true, nil
	}
	c.startHeadTimer()
	return 0, false, nil
}

// advance moves what may be passed on from pending to ready; false asks for more bytes.
func (c *Conn) advance() bool {
	n, head, err := c.scan.step(c.pending)
	if err != nil {
		c.refuse(err)
		return true
	}
	c.ready, c.pending = c.pending[:n], c.pending[n:]
	if head {
		c.mu.Lock()
		c.heads = append(c.heads, nil)
		c.headEnds = time.Time{}
		c.applyDeadline()
		c.mu.Unlock()
	}
	return n > 0
}

// refuse ends the connection for the reader. A head is replaced, so that the handler
// can answer after the answers to earlier requests; a body breaks off.
func (c *Conn) refuse(err *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending, c.rejected = nil, true
	c.headEnds = time.Time{}
	c.applyDeadline()
	if c.scan.state == inHead {
		c.heads = append(c.heads, err)
		c.ready, c.readErr = []byte(refused), io.EOF
		return
	}
	c.bodyErr, c.readErr = err, err
}

// fill reads more into pending.
func (c *Conn) fill() error {
	if c.scan.state == atUpgrade && len(c.pending) >= maxEarly {
		// The client talks before the application has agreed to listen.
		c.readErr = io.ErrUnexpectedEOF
		c.scan.state = opaque
		return c.readErr
	}
	if len(c.pending) == 0 {
		if c.buf == nil {
			c.buf = make([]byte, inPlace)
		}
		c.pending = c.buf[:0]
	}
	if len(c.pending) == cap(c.pending) {
		bigger := make([]byte, len(c.pending), 2*cap(c.pending)+inPlace)
		copy(bigger, c.pending)
		c.pending = bigger
	}
	if len(c.pending) > 0 {
		c.startHeadTimer()
	}
	n, err := c.Conn.Read(c.pending[len(c.pending):cap(c.pending)])
	c.pending = c.pending[:len(c.pending)+n]
	if n > 0 {
		c.startHeadTimer()
		return nil
	}
	return err
}

// startHeadTimer bounds an incomplete head. The server's own bound does not begin
// with the first byte: it waits for four of them, and this reader gives it none
// before the head is complete.
func (c *Conn) startHeadTimer() {
	if c.headTimeout <= 0 || c.scan.state != inHead && c.scan.state != atStart {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.headEnds.IsZero() {
		c.headEnds = time.Now().Add(c.headTimeout)
		c.applyDeadline()
	}
}

// applyDeadline sets the earlier of the server's deadline and ours. The caller holds mu.
func (c *Conn) applyDeadline() {
	deadline := c.outer
	if !c.headEnds.IsZero() && (deadline.IsZero() || c.headEnds.Before(deadline)) {
		deadline = c.headEnds
	}
	if c.finished.Load() {
		deadline = time.Unix(1, 0)
	}
	// It fails on a closed connection only, where the next read says so.
	_ = c.Conn.SetReadDeadline(deadline)
}

// SetReadDeadline is the server's.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outer = t
	c.applyDeadline()
	return nil
}

// SetDeadline is the server's.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(t)
}

// Begun says whether a request is on its way on a connection that waits for one: bytes
// have come that nobody has read, a part of its head was read, or all of it and no handler
// has it yet. When that cannot be known it is false.
func (c *Conn) Begun() bool {
	c.mu.Lock()
	begun := !c.headEnds.IsZero() || len(c.heads) > 0
	c.mu.Unlock()
	return begun || unread(c.Conn)
}

func unread(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	found := false
	// Not raw.Read: that waits for the server, which is reading.
	err = raw.Control(func(descriptor uintptr) {
		n, _, err := syscall.Recvfrom(int(descriptor), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		found = err == nil && n > 0
	})
	return err == nil && found
}

// CloseWrite ends our direction, so that the client reads to the end.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close closes the connection; after a refusal, once the client had time to read it.
func (c *Conn) Close() error {
	c.mu.Lock()
	rejected := c.rejected
	c.rejected = false
	c.mu.Unlock()
	if rejected && c.CloseWrite() == nil && c.Conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		// How the drain ends does not matter: the connection is closed next.
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	return c.Conn.Close()
}
