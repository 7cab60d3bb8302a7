// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
)

// What a server may send until it is asked the next thing. The longest answers are a page
// of sessions and a Cluster's list of its commands, of which neither comes near. The issuer
// serves other tenants too, and none of their servers may take its memory: the client
// gives an answer memory as soon as its length is announced, and a list within a list
// another call on its stack.
const (
	maxAnswer   = 8 << 20
	maxElements = 256 << 10
	// maxHeader is how long a line can be that announces a length.
	maxHeader = 24
)

var errTooMuch = errors.New("the server sends more than an answer about sessions can be")

// capped ends a connection on which a server sends, or announces, too much. It follows the
// protocol, RESP, no further than to find the lengths.
type capped struct {
	net.Conn
	bytes, elements atomic.Int64 // that are left

	header []byte // the begin of a line that has not ended
	skip   int64  // bytes of text to come
}

// cappedSocket lets the client see whether an idle connection was closed.
type cappedSocket struct {
	*capped
	syscall.Conn
}

func newCapped(conn net.Conn) net.Conn {
	c := &capped{Conn: conn}
	c.allow()
	if socket, ok := conn.(syscall.Conn); ok {
		return cappedSocket{c, socket}
	}
	return c
}

func (c *capped) allow() {
	c.bytes.Store(maxAnswer)
	c.elements.Store(maxElements)
}

func (c *capped) Write(p []byte) (int, error) {
	c.allow()
	return c.Conn.Write(p)
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.bytes.Add(-int64(n)) < 0 || !c.follow(p[:n]) {
		return 0, errTooMuch
	}
	return n, err
}

// follow what has come; it is false when it announces too much.
func (c *capped) follow(p []byte) bool {
	for len(p) > 0 {
		if c.skip > 0 {
			text := min(c.skip, int64(len(p)))
			c.skip -= text
			p = p[text:]
			continue
		}
		end := bytes.IndexByte(p, '\n')
		line := p
		if end >= 0 {
			line = p[:end]
		}
		c.header = append(c.header, line[:min(len(line), maxHeader-len(c.header))]...)
		if end < 0 {
			return true
		}
		if !c.announced(bytes.TrimSuffix(c.header, []byte("\r"))) {
			return false
		}
		c.header, p = c.header[:0], p[end+1:]
	}
	return true
}

// announced is what a line says about what follows it.
func (c *capped) announced(line []byte) bool {
	if len(line) == 0 || !bytes.ContainsRune([]byte("$!=*~>%|"), rune(line[0])) {
		return true // a short answer in itself
	}
	if string(line[1:]) == "-1" {
		return true // nothing
	}
	n, err := strconv.ParseUint(string(line[1:]), 10, 32)
	if err != nil || len(c.header) == maxHeader {
		return false // no length, or one that would be taken for another
	}
	switch line[0] {
	case '$', '!', '=':
		c.skip = int64(n) + 2 // with the end of its line
		return n <= maxAnswer
	case '%', '|': // names and values
		n *= 2
	}
	return c.elements.Add(-int64(n)) >= 0
}
