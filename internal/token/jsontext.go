// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// text reads a string.
func (s *scanner) text() (string, error) {
	if s.peek() != '"' {
		return "", errJSONType
	}
	start := s.pos + 1
	for i := start; i < len(s.in); i++ {
		switch c := s.in[i]; {
		case c == '"':
			s.pos = i + 1
			return validText(s.in[start:i])
		case c == '\\':
			s.pos = i
			return s.escapedText(s.in[start:i])
		case c < ' ':
			return "", errJSONSyntax
		}
	}
	return "", errJSONSyntax
}

// escapedText goes on where a string has its first escape.
func (s *scanner) escapedText(begin string) (string, error) {
	out := append(make([]byte, 0, len(begin)+32), begin...)
	for s.pos < len(s.in) {
		c := s.in[s.pos]
		s.pos++
		switch {
		case c == '"':
			return validText(string(out))
		case c < ' ':
			return "", errJSONSyntax
		case c != '\\':
			out = append(out, c)
		default:
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		}
	}
	return "", errJSONSyntax
}

// escape reads what follows a backslash.
func (s *scanner) escape() (rune, error) {
	c := s.peek()
	s.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
	default:
		return 0, errJSONSyntax
	}
	r, err := s.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if !strings.HasPrefix(s.in[s.pos:], `\u`) {
		return 0, errJSONText
	}
	s.pos += 2
	low, err := s.hex4()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, errJSONText
	}
	return r, nil
}

func (s *scanner) hex4() (rune, error) {
	if len(s.in)-s.pos < 4 {
		return 0, errJSONSyntax
	}
	digits := s.in[s.pos : s.pos+4]
	for i := range len(digits) {
		// ParseUint alone would take a sign or an underscore.
		if c := digits[i]; !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return 0, errJSONSyntax
		}
	}
	n, err := strconv.ParseUint(digits, 16, 16)
	if err != nil {
		return 0, errJSONSyntax
	}
	s.pos += 4
	return rune(n), nil
}

// number reads a number and returns it as it is written.
func (s *scanner) number() (string, error) {
	start := s.pos
	s.take('-')
	if !s.take('0') && !s.digits() {
		return "", errJSONSyntax
	}
	if s.take('.') && !s.digits() {
		return "", errJSONSyntax
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return "", errJSONSyntax
		}
	}
	return s.in[start:s.pos], nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for isDigit(s.peek()) {
		s.pos++
	}
	return s.pos > start
}

func validText(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", errJSONText
	}
	return text, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
