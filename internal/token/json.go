// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/json"
	"slices"
	"strings"
)

// jsonError is one of a fixed set of sentences; it holds nothing of the input.
type jsonError string

func (e jsonError) Error() string { return string(e) }

const (
	errJSONSyntax    jsonError = "it is not valid JSON"
	errJSONDuplicate jsonError = "a name occurs twice in one object"
	errJSONType      jsonError = "a member has the wrong JSON type"
	errJSONText      jsonError = "a string is not valid Unicode"
	errJSONDepth     jsonError = "it is nested too deeply"
	errJSONValues    jsonError = "it has too many values"
)

// limits bound the work that a document can cause.
type limits struct {
	depth  int // objects and arrays inside each other
	values int // values and names altogether
}

// scanner reads a JSON document (RFC 8259) in one pass over it. It is stricter than
// encoding/json: names are compared exactly and may not repeat in an object, strings
// must be valid Unicode without lone surrogates (RFC 7493), nothing is converted.
// Strings without escapes share the memory of the document.
type scanner struct {
	in   string
	pos  int
	left limits
}

func newScanner(in string, l limits) *scanner { return &scanner{in: in, left: l} }

// document reads one object that is the whole input. For each member visit is called
// with the name and must read the value.
func (s *scanner) document(visit func(name string) error) error {
	s.space()
	if err := s.object(visit); err != nil {
		return err
	}
	s.space()
	if s.pos != len(s.in) {
		return errJSONSyntax
	}
	return nil
}

func (s *scanner) object(visit func(name string) error) error {
	if s.peek() != '{' {
		return errJSONType
	}
	if err := s.enter(); err != nil {
		return err
	}
	var seen nameSet
	for first := true; ; first = false {
		done, err := s.next('}', first)
		if done || err != nil {
			return err
		}
		if err := s.count(); err != nil {
			return err
		}
		if s.peek() != '"' {
			return errJSONSyntax
		}
		name, err := s.text()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return errJSONDuplicate
		}
		s.space()
		if !s.take(':') {
			return errJSONSyntax
		}
		s.space()
		if err := visit(name); err != nil {
			return err
		}
	}
}

func (s *scanner) array(visit func() error) error {
	if s.peek() != '[' {
		return errJSONType
	}
	if err := s.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		done, err := s.next(']', first)
		if done || err != nil {
			return err
		}
		if err := visit(); err != nil {
			return err
		}
	}
}

// next goes to the next member or element, or over the end of the object or array.
func (s *scanner) next(end byte, first bool) (done bool, err error) {
	s.space()
	if s.take(end) {
		s.left.depth++
		return true, nil
	}
	if !first {
		if !s.take(',') {
			return false, errJSONSyntax
		}
		s.space()
	}
	return false, nil
}

func (s *scanner) enter() error {
	s.left.depth--
	if s.left.depth < 0 {
		return errJSONDepth
	}
	s.pos++
	return s.count()
}

func (s *scanner) count() error {
	s.left.values--
	if s.left.values < 0 {
		return errJSONValues
	}
	return nil
}

// value reads any value: string, bool, nil, [json.Number], []any or map[string]any.
func (s *scanner) value() (any, error) {
	switch c := s.peek(); {
	case c == '"':
		if err := s.count(); err != nil {
			return nil, err
		}
		return s.text()
	case c == '{':
		object := map[string]any{}
		err := s.object(func(name string) (err error) {
			object[name], err = s.value()
			return err
		})
		return object, err
	case c == '[':
		list := []any{}
		err := s.array(func() error {
			element, err := s.value()
			list = append(list, element)
			return err
		})
		return list, err
	case c == '-' || isDigit(c):
		if err := s.count(); err != nil {
			return nil, err
		}
		number, err := s.number()
		return json.Number(number), err
	default:
		if err := s.count(); err != nil {
			return nil, err
		}
		return s.literal()
	}
}

func (s *scanner) literal() (any, error) {
	rest := s.in[s.pos:]
	switch {
	case strings.HasPrefix(rest, "true"):
		s.pos += len("true")
		return true, nil
	case strings.HasPrefix(rest, "false"):
		s.pos += len("false")
		return false, nil
	case strings.HasPrefix(rest, "null"):
		s.pos += len("null")
		return nil, nil
	default:
		return nil, errJSONSyntax
	}
}

func (s *scanner) space() {
	for {
		switch s.peek() {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek is 0 at the end; a NUL byte in the input is an error wherever it occurs.
func (s *scanner) peek() byte {
	if s.pos < len(s.in) {
		return s.in[s.pos]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.pos < len(s.in) && s.in[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// nameSet finds repeated names without allocating for objects of the usual size, and
// without quadratic work for others.
type nameSet struct {
	few  [16]string
	n    int
	more map[string]struct{}
}

// add is false when the name is in the set already.
func (n *nameSet) add(name string) bool {
	if slices.Contains(n.few[:n.n], name) {
		return false
	}
	if n.n < len(n.few) {
		n.few[n.n] = name
		n.n++
		return true
	}
	if n.more == nil {
		n.more = map[string]struct{}{}
	}
	if _, known := n.more[name]; known {
		return false
	}
	n.more[name] = struct{}{}
	return true
}
