// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestCanonicalPath(t *testing.T) {
	tests := map[string]struct {
		in, want string
		err      error
	}{
		"a plain path stays as it is":                    {in: "/a/b-c/d.e", want: "/a/b-c/d.e"},
		"the root":                                       {in: "/", want: "/"},
		"a trailing slash is kept":                       {in: "/a/", want: "/a/"},
		"three dots are a name":                          {in: "/.../a", want: "/.../a"},
		"a hidden file is a name":                        {in: "/.well-known/x", want: "/.well-known/x"},
		"an encoded letter is the letter":                {in: "/%61dmin", want: "/admin"},
		"an encoded sub-delimiter is the delimiter":      {in: "/a%2Bb%40c", want: "/a+b@c"},
		"lower-case hexadecimal becomes upper case":      {in: "/caf%c3%a9", want: "/caf%C3%A9"},
		"an encoded space stays encoded":                 {in: "/a%20b", want: "/a%20b"},
		"a bare brace is encoded":                        {in: "/a{b}", want: "/a%7Bb%7D"},
		"an encoded question mark stays encoded":         {in: "/a%3fb", want: "/a%3Fb"},
		"a percent sign that decodes once":               {in: "/100%25", want: "/100%25"},
		"an encoded percent before hex is twice encoded": {in: "/%252e%252e/admin", err: ErrPathTwiceEncoded},
		"twice encoded through an encoded digit":         {in: "/%25%32e", err: ErrPathTwiceEncoded},
		"no path":                                        {in: "", err: ErrPathNotAbsolute},
		"asterisk form":                                  {in: "*", err: ErrPathNotAbsolute},
		"parent segment":                                 {in: "/a/../b", err: ErrPathDotSegment},
		"parent segment at the end":                      {in: "/a/..", err: ErrPathDotSegment},
		"dot segment":                                    {in: "/./a", err: ErrPathDotSegment},
		"dot segment beside an escape":                   {in: "/%61/./a", err: ErrPathDotSegment},
		"empty segment":                                  {in: "//admin", err: ErrPathEmptySegment},
		"empty segment at the end":                       {in: "/admin//", err: ErrPathEmptySegment},
		"encoded dot":                                    {in: "/a%2eb", err: ErrPathSeparator},
		"encoded slash":                                  {in: "/a%2Fb", err: ErrPathSeparator},
		"encoded backslash":                              {in: "/a%5cb", err: ErrPathSeparator},
		"backslash":                                      {in: `/a\b`, err: ErrPathSeparator},
		"path parameter":                                 {in: "/a;x/b", err: ErrPathSeparator},
		"encoded path parameter":                         {in: "/a%3Bx", err: ErrPathSeparator},
		"fragment":                                       {in: "/a#b", err: ErrPathControl},
		"NUL":                                            {in: "/a%00", err: ErrPathControl},
		"encoded line feed":                              {in: "/a%0ab", err: ErrPathControl},
		"a bare byte above ASCII":                        {in: "/caf\xc3\xa9", err: ErrPathControl},
		"overlong slash":                                 {in: "/a%c0%afb", err: ErrPathNotUTF8},
		"overlong dot":                                   {in: "/%c0%ae%c0%ae/", err: ErrPathNotUTF8},
		"percent sign alone":                             {in: "/a%", err: ErrPathBadEscape},
		"percent sign with one digit":                    {in: "/a%4", err: ErrPathBadEscape},
		"percent sign with other characters":             {in: "/a%zz", err: ErrPathBadEscape},
		"the escape of another standard":                 {in: "/a%u002e", err: ErrPathBadEscape},
		"longer than the limit":                          {in: "/" + strings.Repeat("a", MaxPath), err: ErrPathTooLong},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := CanonicalPath(tt.in)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && got != tt.want {
				t.Fatalf("canonical form %q, want %q", got, tt.want)
			}
		})
	}
}

// TestCanonicalPathEveryEscape puts every byte, encoded, in several positions and
// compares the outcome with what the standard library decodes.
func TestCanonicalPathEveryEscape(t *testing.T) {
	refused := map[byte]bool{'.': true, '/': true, '\\': true, ';': true, 0x7f: true}
	for c := range 256 {
		for _, format := range []string{"/%%%02x", "/a%%%02X", "/%%%02xa", "/a/%%%02x/b", "/a%%%02xb/"} {
			in := fmt.Sprintf(format, c)
			got, err := CanonicalPath(in)
			if want := refused[byte(c)] || c < 0x20 || c >= 0x80; (err != nil) != want {
				t.Errorf("%s: error %v, want one: %v", in, err, want)
			}
			if err != nil {
				continue
			}
			once, _ := url.PathUnescape(in)
			again, _ := url.PathUnescape(got)
			if once != again {
				t.Errorf("%s: decodes to %q, its canonical form %s to %q", in, once, got, again)
			}
		}
	}
}

func TestCanonicalPathDoesNotAllocateForPlainPaths(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = CanonicalPath("/api/v1/orders/12345") }); n != 0 {
		t.Fatalf("%v allocations, want none", n)
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/a%2fb", "/%252e", "/..", "/a{b", "/%c3%a9", "//", "/;"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := CanonicalPath(in)
		if err != nil {
			return
		}
		if again, err := CanonicalPath(got); err != nil || again != got {
			t.Fatalf("%q → %q is not a fixed point: %q, %v", in, got, again, err)
		}
		once, err1 := url.PathUnescape(in)
		decoded, err2 := url.PathUnescape(got)
		if err1 != nil || err2 != nil || once != decoded {
			t.Fatalf("%q and its canonical form %q name different paths", in, got)
		}
		for segment := range strings.SplitSeq(strings.TrimSuffix(decoded, "/")[min(1, len(strings.TrimSuffix(decoded, "/"))):], "/") {
			if segment == "." || segment == ".." || strings.ContainsAny(segment, "\\;\x00") {
				t.Fatalf("%q kept the segment %q", in, segment)
			}
		}
		if strings.Contains(decoded, "//") {
			t.Fatalf("%q kept an empty segment", in)
		}
	})
}
