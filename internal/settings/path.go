// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"errors"
	"unicode/utf8"
)

// MaxPath is the longest path, in bytes as received, that has a canonical form.
const MaxPath = 8 << 10

// Why a path has no canonical form. The texts never repeat the path.
var (
	ErrPathNotAbsolute  = errors.New("path does not begin with a slash")
	ErrPathTooLong      = errors.New("path is longer than 8192 bytes")
	ErrPathEmptySegment = errors.New("path has an empty segment (//)")
	ErrPathDotSegment   = errors.New("path has a dot segment (. or ..)")
	ErrPathBadEscape    = errors.New("path has a percent sign that two hexadecimal digits do not follow")
	ErrPathSeparator    = errors.New("path has a separator that servers read differently (%2e, %2f, %5c, ; or \\)")
	ErrPathControl      = errors.New("path has a control character, a space or a byte that RFC 3986 does not allow")
	ErrPathNotUTF8      = errors.New("path is not valid UTF-8 when decoded")
	ErrPathTwiceEncoded = errors.New("path is encoded twice")
)

// CanonicalPath returns the one form of an absolute path that rules are compared
// with and that the application is sent (design section 8 item 2), or why there is
// none. It takes the path of a request target as received, without the query.
//
// RFC 3986 section 6.2.2 lets servers treat several spellings as one path, and
// servers differ in which. A spelling that some server reads as another path is
// refused: empty and dot segments, encoded dots and slashes, backslashes,
// semicolons (path parameters), what is encoded twice, control characters and
// what is not UTF-8. The spellings that are left differ in encoding alone and are
// brought to one: characters of a path stand for themselves, all others are
// percent-encoded in upper case. A path that has this form already is returned as
// is, without an allocation.
func CanonicalPath(path string) (string, error) {
	if path == "" || path[0] != '/' {
		return "", ErrPathNotAbsolute
	}
	if len(path) > MaxPath {
		return "", ErrPathTooLong
	}
	if isPlainPath(path) {
		return path, checkSegments(path)
	}
	return encodePath(path)
}

// isPlainPath reports that the path has only characters that stand for themselves.
func isPlainPath(path string) bool {
	for i := range len(path) {
		if class[path[i]] != plain {
			return false
		}
	}
	return true
}

// encodePath decodes each character once and writes its canonical spelling.
func encodePath(path string) (string, error) {
	decoded := make([]byte, 0, len(path))
	out := make([]byte, 0, len(path)+16)
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' {
			switch class[c] {
			case plain:
				out = append(out, c)
			case loose:
				out = appendEscape(out, c)
			case separator:
				return "", ErrPathSeparator
			case forbidden:
				return "", ErrPathControl
			}
			decoded = append(decoded, c)
			continue
		}
		if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
			return "", ErrPathBadEscape
		}
		c = unhex(path[i+1])<<4 | unhex(path[i+2])
		i += 2
		switch {
		case c == '.' || c == '/' || class[c] == separator:
			return "", ErrPathSeparator
		case c < 0x20 || c == 0x7f:
			return "", ErrPathControl
		case class[c] == plain:
			out = append(out, c)
		default:
			out = appendEscape(out, c)
		}
		decoded = append(decoded, c)
	}
	if !utf8.Valid(decoded) {
		return "", ErrPathNotUTF8
	}
	if decodesAgain(decoded) {
		return "", ErrPathTwiceEncoded
	}
	canonical := string(out)
	return canonical, checkSegments(canonical)
}

// checkSegments refuses empty and dot segments. An empty last segment is a
// trailing slash and fine.
func checkSegments(path string) error {
	for i := 1; i < len(path); i++ {
		if path[i-1] != '/' {
			continue
		}
		switch rest := path[i:]; {
		case rest[0] == '/':
			return ErrPathEmptySegment
		case rest == "." || rest == ".." || hasPrefix(rest, "./") || hasPrefix(rest, "../"):
			return ErrPathDotSegment
		}
	}
	return nil
}

// decodesAgain reports a percent sign that a second decoder would act on.
func decodesAgain(decoded []byte) bool {
	for i := 0; i+2 < len(decoded); i++ {
		if decoded[i] == '%' && isHex(decoded[i+1]) && isHex(decoded[i+2]) {
			return true
		}
	}
	return false
}

func hasPrefix(s, prefix string) bool { return len(s) >= len(prefix) && s[:len(prefix)] == prefix }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	default:
		return c - '0'
	}
}

func appendEscape(b []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(b, '%', digits[c>>4], digits[c&15])
}

// characterClass is what one byte means in a path.
type characterClass uint8

const (
	forbidden characterClass = iota // controls, space, '#', '?' and bytes above ASCII
	plain                           // pchar of RFC 3986 section 3.3 and the slash
	loose                           // not a pchar, but clients send it bare and all servers agree on it
	separator                       // servers disagree whether it ends a segment
)

var class = func() (t [256]characterClass) {
	for c := '0'; c <= '9'; c++ {
		t[c] = plain
	}
	for c := 'A'; c <= 'Z'; c++ {
		t[c], t[c-'A'+'a'] = plain, plain
	}
	for _, c := range []byte("-._~!$&'()*+,=:@/") {
		t[c] = plain
	}
	for _, c := range []byte("\"<>[]^`{|}") {
		t[c] = loose
	}
	for _, c := range []byte(";\\") {
		t[c] = separator
	}
	return t
}()
