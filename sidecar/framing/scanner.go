// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package framing

import "bytes"

// The bounds of what is held back until it is complete, in bytes.
const (
	// MaxHead bounds a request's head.
	MaxHead = 64 << 10
	// maxChunkLine bounds the line with a chunk's size and its extensions, and
	// maxTrailers the trailer section. Both are below the bounds of net/http, so that
	// the answer is ours.
	maxChunkLine = 2 << 10
	maxTrailers  = 3 << 10
)

// preface begins a connection of HTTP/2 with prior knowledge (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// state is what the next byte of the connection belongs to.
type state uint8

const (
	atStart     state = iota // HTTP/2's preface or a head
	inHead                   // a head, held back until complete
	inBody                   // remaining bytes of a body or of a chunk's data
	inChunkEnd               // CRLF after a chunk's data
	inChunkLine              // the size of the next chunk
	inTrailers               // header lines after the last chunk
	atUpgrade                // nothing may be read before the handler took the connection over
	opaque                   // not HTTP/1.x any more: passed on untouched
)

// scanner follows one direction of a connection. It is a pure state machine.
type scanner struct {
	state     state
	chunked   bool
	remaining int64
	trailers  int
}

// step looks at data, which begins where the last step ended, and says how many
// bytes of it may be passed on; 0 means that more is needed. head is set when
// these bytes are a whole head.
func (s *scanner) step(data []byte) (n int, head bool, err *Error) {
	switch s.state {
	case atStart:
		if len(data) < len(preface) && bytes.HasPrefix([]byte(preface), data) {
			return 0, false, nil
		}
		if bytes.HasPrefix(data, []byte(preface)) {
			s.state = opaque
			return len(data), false, nil
		}
		s.state = inHead
		return s.step(data)
	case inHead:
		return s.stepHead(data)
	case inBody:
		n = int(min(s.remaining, int64(len(data))))
		s.consume(n)
		return n, false, nil
	case inChunkEnd:
		if len(data) < 2 {
			return 0, false, nil
		}
		if data[0] != '\r' || data[1] != '\n' {
			return 0, false, malformed("a chunk is longer than its size")
		}
		s.state = inChunkLine
		return 2, false, nil
	case inChunkLine:
		return s.stepChunkLine(data)
	case inTrailers:
		return s.stepTrailer(data)
	case atUpgrade:
		return 0, false, nil
	default:
		return len(data), false, nil
	}
}

func (s *scanner) stepHead(data []byte) (int, bool, *Error) {
	end := headEnd(data)
	if end < 0 {
		if len(data) > MaxHead {
			return 0, false, &Error{TooLarge: true, detail: "the head is larger than 64 KiB"}
		}
		return 0, false, nil
	}
	if end > MaxHead {
		return 0, false, &Error{TooLarge: true, detail: "the head is larger than 64 KiB"}
	}
	h, err := CheckHead(data[:end])
	if err != nil {
		return 0, false, err
	}
	s.chunked = h.Chunked
	switch {
	case h.Upgrade:
		s.state = atUpgrade
	case h.Chunked:
		s.state = inChunkLine
	case h.ContentLength > 0:
		s.state, s.remaining = inBody, h.ContentLength
	default:
		s.state = inHead
	}
	return end, true, nil
}

// headEnd finds the first empty line as any reader would, so that a head with bare
// line feeds ends, and is refused, without waiting for more. A head that begins
// with an empty line ends there, for the same reason.
func headEnd(data []byte) int {
	for i := 0; ; {
		lf := bytes.IndexByte(data[i:], '\n')
		if lf < 0 {
			return -1
		}
		line := data[i : i+lf]
		i += lf + 1
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return i
		}
	}
}

// consume counts body bytes that were passed on.
func (s *scanner) consume(n int) {
	if s.remaining -= int64(n); s.remaining > 0 {
		return
	}
	s.state = inHead
	if s.chunked {
		s.state = inChunkEnd
	}
}

func (s *scanner) stepChunkLine(data []byte) (int, bool, *Error) {
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		if len(data) > maxChunkLine {
			return 0, false, malformed("a chunk size line is too long")
		}
		return 0, false, nil
	}
	line, _, err := cutLine(data[:end+1])
	if err != nil {
		return 0, false, err
	}
	size, err := parseChunkSize(line)
	if err != nil {
		return 0, false, err
	}
	s.state, s.remaining = inBody, size
	if size == 0 {
		s.state, s.trailers = inTrailers, 0
	}
	return end + 1, false, nil
}

// parseChunkSize reads "size [;extensions]" (RFC 9112 section 7.1.1).
func parseChunkSize(line []byte) (int64, *Error) {
	digits, extensions, _ := bytes.Cut(line, []byte(";"))
	if len(digits) == 0 || len(digits) > 15 {
		return 0, malformed("a chunk size is malformed")
	}
	var n int64
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | int64(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			n = n<<4 | int64(c|0x20-'a'+10)
		default:
			return 0, malformed("a chunk size is malformed")
		}
	}
	for _, c := range extensions {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, malformed("a chunk extension has a control character")
		}
	}
	return n, nil
}

func (s *scanner) stepTrailer(data []byte) (int, bool, *Error) {
	end := bytes.IndexByte(data, '\n')
	seen := end
	if end < 0 {
		seen = len(data)
	}
	if s.trailers+seen > maxTrailers {
		return 0, false, malformed("the trailers are too long")
	}
	if end < 0 {
		return 0, false, nil
	}
	line, _, err := cutLine(data[:end+1])
	if err != nil {
		return 0, false, err
	}
	s.trailers += end + 1
	if len(line) == 0 {
		s.state = inHead
		return end + 1, false, nil
	}
	name, _, err := cutField(line)
	if err != nil {
		return 0, false, err
	}
	for _, forbidden := range []string{"content-length", "transfer-encoding", "host", "authorization", "connection", "upgrade"} {
		if equalFold(name, forbidden) {
			return 0, false, malformed("a trailer has the name of a header that cannot be one")
		}
	}
	return end + 1, false, nil
}
