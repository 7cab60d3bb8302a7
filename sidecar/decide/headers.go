// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package decide

import "strings"

// fold brings a header name to the form in which names are compared: gateway
// interfaces (CGI, WSGI, FastCGI) hand "X-User-Id" and "X_USER_ID" to an application
// under one name, and some do so for every character but letters and digits.
func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		b[i] = foldByte(c)
	}
	return string(b)
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		return c
	default:
		return '-'
	}
}

// foldsTo compares a name with a folded one, without an allocation.
func foldsTo(name, folded string) bool {
	if len(name) != len(folded) {
		return false
	}
	for i := range len(name) {
		if foldByte(name[i]) != folded[i] {
			return false
		}
	}
	return true
}

// Reserved says that a client's request header could be taken for one of the
// identity headers that only the sidecar sets. It never reaches the application.
func (p *Policy) Reserved(name string) bool {
	for i := range p.claims {
		if foldsTo(name, p.claims[i].folded) {
			return true
		}
	}
	return false
}

// CarriesToken says that an application's response header could be taken for the
// one in which the sidecar returns a new token. It never reaches the client.
func (p *Policy) CarriesToken(name string) bool { return foldsTo(name, p.refresh) }

// framingNames are headers that say where a message ends or who it is for. Under
// another spelling they are no such thing to us, and might be one to the application.
var framingNames = []string{
	"content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection",
	"te", "trailer", "upgrade", "host", "expect", "authorization", "http2-settings",
}

// AmbiguousName says that a request header's name is not a token (RFC 9110 section
// 5.1), or folds to one with a meaning of its own that it is not.
func AmbiguousName(name string) bool {
	if name == "" {
		return true
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return true
		}
	}
	for _, framing := range framingNames {
		if foldsTo(name, framing) && !strings.EqualFold(name, framing) {
			return true
		}
	}
	return false
}
