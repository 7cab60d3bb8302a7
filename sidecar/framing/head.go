// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package framing

import (
	"bytes"
	"net/url"
	"strings"
)

// Error is why a message was refused: a fixed sentence without anything of the message.
type Error struct {
	// TooLarge tells a head beyond the limit from one that is malformed.
	TooLarge bool
	// Target says that the framing is well, and the request target is no URI.
	Target bool
	detail string
}

// Error is the sentence.
func (e *Error) Error() string { return e.detail }

func malformed(detail string) *Error { return &Error{detail: detail} }

// Head is what framing needs to know of a request's head.
type Head struct {
	// ContentLength of the body in bytes, 0 without one.
	ContentLength int64
	// Chunked says that the body is in chunks (RFC 9112 section 7.1).
	Chunked bool
	// Upgrade says that there is an Upgrade header, other than one to h2c alone, which
	// is never answered with 101.
	Upgrade bool
}

// CheckHead checks a complete head: request line, header lines and the empty line,
// all ended by CRLF (RFC 9112 sections 2 to 6). It is stricter than the RFC wherever
// that allows a recipient to repair.
func CheckHead(head []byte) (Head, *Error) {
	line, rest, err := cutLine(head)
	if err != nil {
		return Head{}, err
	}
	http11, err := checkRequestLine(line)
	if err != nil {
		return Head{}, err
	}
	f := fields{http11: http11}
	for {
		if line, rest, err = cutLine(rest); err != nil {
			return Head{}, err
		}
		if len(line) == 0 {
			break
		}
		if err := f.add(line); err != nil {
			return Head{}, err
		}
	}
	h, err := f.finish()
	if err != nil {
		return Head{}, err
	}
	return h, checkTarget(head)
}

// checkTarget refuses what the server would refuse in words of its own. It comes last:
// framing matters more.
func checkTarget(head []byte) *Error {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, _, _ := bytes.Cut(rest, []byte(" "))
	path, _, _ := bytes.Cut(target, []byte("?"))
	if path[0] == '/' && bytes.IndexByte(path, '%') < 0 {
		return nil // nothing in it can be wrong for a URI
	}
	if string(method) == "CONNECT" && target[0] != '/' {
		return nil // in authority form, which the server reads and the handler refuses
	}
	if _, err := url.ParseRequestURI(string(target)); err != nil {
		return &Error{Target: true, detail: "the request target is not a URI"}
	}
	return nil
}

// cutLine takes one line off, without its CRLF. A CR or LF of its own is an error,
// as is NUL.
func cutLine(data []byte) (line, rest []byte, err *Error) {
	end := bytes.IndexByte(data, '\n')
	if end < 1 || data[end-1] != '\r' {
		return nil, nil, malformed("a line does not end with CRLF")
	}
	line, rest = data[:end-1], data[end+1:]
	if bytes.IndexByte(line, '\r') >= 0 {
		return nil, nil, malformed("a line has a CR inside")
	}
	return line, rest, nil
}

// checkRequestLine wants "method SP target SP HTTP/1.x" and nothing looser.
func checkRequestLine(line []byte) (http11 bool, err *Error) {
	method, rest, ok1 := bytes.Cut(line, []byte(" "))
	target, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || !isToken(method) || len(target) == 0 {
		return false, malformed("the request line is not method, target and version")
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return false, malformed("the request target has a control character")
		}
	}
	switch string(version) {
	case "HTTP/1.1":
		return true, nil
	case "HTTP/1.0":
		return false, nil
	}
	return false, malformed("the version is not HTTP/1.0 or HTTP/1.1")
}

// fields gathers what the header lines say about framing.
type fields struct {
	head             Head
	http11           bool
	hosts, upgrades  int
	length, encoding bool
}

func (f *fields) add(line []byte) *Error {
	name, value, err := cutField(line)
	if err != nil {
		return err
	}
	switch {
	case equalFold(name, "host"):
		if f.hosts++; f.hosts > 1 {
			return malformed("there are two Host headers")
		}
		if !isHost(value) {
			return malformed("the Host header is malformed")
		}
	case equalFold(name, "content-length"):
		if f.length {
			return malformed("there are two Content-Length headers")
		}
		f.length = true
		if f.head.ContentLength, err = parseLength(value); err != nil {
			return err
		}
	case equalFold(name, "transfer-encoding"):
		if f.encoding || !equalFold(value, "chunked") {
			return malformed("Transfer-Encoding is not chunked alone")
		}
		f.encoding, f.head.Chunked = true, true
	case equalFold(name, "upgrade"):
		if f.upgrades++; f.upgrades > 1 || !equalFold(value, "h2c") {
			f.head.Upgrade = true
		}
	}
	return nil
}

func (f *fields) finish() (Head, *Error) {
	switch {
	case f.length && f.encoding:
		return Head{}, malformed("there are Content-Length and Transfer-Encoding")
	case f.encoding && !f.http11:
		return Head{}, malformed("Transfer-Encoding in HTTP/1.0")
	case f.hosts == 0 && f.http11:
		return Head{}, malformed("there is no Host header")
	case f.head.Upgrade && (f.head.Chunked || f.head.ContentLength > 0):
		return Head{}, malformed("a request with Upgrade has a body")
	}
	return f.head, nil
}

// cutField splits a header or trailer line. Folding (RFC 9112 section 5.2), white
// space before the colon and control characters are errors.
func cutField(line []byte) (name, value []byte, err *Error) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, malformed("a header is folded")
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || !isToken(name) {
		return nil, nil, malformed("a header name is malformed")
	}
	value = bytes.Trim(value, " \t")
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, malformed("a header value has a control character")
		}
	}
	return name, value, nil
}

// parseLength takes digits alone: no sign, no list, no white space.
func parseLength(value []byte) (int64, *Error) {
	if len(value) == 0 || len(value) > 18 {
		return 0, malformed("Content-Length is not a number")
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, malformed("Content-Length is not a number")
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// equalFold compares with a name in small ASCII letters.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isHost has the characters of RFC 3986 sections 3.2.2 and 3.2.3.
func isHost(b []byte) bool {
	for _, c := range b {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (c >= 0x7f || strings.IndexByte("-._~!$&'()*+,;=:[]%", c) < 0) {
			return false
		}
	}
	return true
}

// isToken is RFC 9110 section 5.6.2.
func isToken(b []byte) bool {
	for _, c := range b {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (c >= 0x7f || strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0) {
			return false
		}
	}
	return len(b) > 0
}
