// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tokenward/tokenward/internal/users"
)

const (
	// DefaultTimeout is the most time that a question takes, with connecting.
	DefaultTimeout = 3 * time.Second

	maxConnections  = 32
	maxHeaderBytes  = 16 << 10
	idleTimeout     = 90 * time.Second
	passwordField   = "password"
	maxTokenLength  = 8 << 10
	allowedInTokens = "-._~+/=" // beside letters and digits: RFC 6750, section 2.1
)

// Options of a [Source]. URL and Dial are required.
type Options struct {
	// URL of the service: https, without user, password and fragment.
	URL string
	// Token is presented as a bearer token (RFC 6750), unless it is empty. White space
	// around it is not part of it.
	Token users.Credential
	// CA is a bundle in PEM that the server's certificate must come from; the
	// system's when empty.
	CA []byte
	// Fields that a login presents beside id; [password] when empty.
	Fields []string
	// Dial makes the connections: outbound.Guard's DialContext. No proxy is used,
	// whatever the environment says: it would resolve the name itself.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout is [DefaultTimeout] when zero.
	Timeout time.Duration
	// Now is time.Now when nil.
	Now func() time.Time
}

// New makes a source. It does not connect yet. An error is a mistake in the options:
// it begins with the option's name in the policy and quotes nothing of the token. One in
// the token or the CA is a [*users.CredentialError].
func New(o Options) (*Source, error) {
	if o.Dial == nil || o.Timeout < 0 {
		return nil, errors.New("open the user service: dial must be set, and the timeout be positive")
	}
	if err := checkURL(o.URL); err != nil {
		return nil, err
	}
	bearer := strings.TrimSpace(o.Token.Reveal())
	if !isToken(bearer) {
		return nil, &users.CredentialError{
			Text: fmt.Sprintf("token: must be at most %d letters, digits and characters of %s", maxTokenLength, allowedInTokens),
		}
	}
	fields := slices.Clone(o.Fields)
	if len(fields) == 0 {
		fields = []string{passwordField}
	}
	var roots *x509.CertPool
	if len(o.CA) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(o.CA) {
			return nil, &users.CredentialError{Text: "ca.crt: holds no certificate in PEM form"}
		}
	}
	s := &Source{url: o.URL, token: users.NewCredential(bearer), fields: fields, timeout: o.Timeout, now: o.Now}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.client = &nethttp.Client{
		Transport: &nethttp.Transport{
			DialContext:            o.Dial,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // so that the limit is one of bytes received
			MaxConnsPerHost:        maxConnections,
			MaxIdleConnsPerHost:    maxConnections,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
		// A redirect would carry a password to a place that nobody has named.
		CheckRedirect: func(*nethttp.Request, []*nethttp.Request) error { return nethttp.ErrUseLastResponse },
	}
	return s, nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return errors.New("url: is not one: write https://users.example.com/tokenward")
	case u.Scheme != "https":
		return fmt.Errorf("url: %q is not https: passwords go there", u.Scheme)
	case u.User != nil:
		return errors.New("url: holds a user or a password: use a bearer token from the Secret")
	case u.Fragment != "":
		return errors.New("url: has a fragment, which is never sent: remove it")
	}
	return nil
}

func isToken(text string) bool {
	for _, c := range []byte(text) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		if !letter && !digit && !strings.ContainsRune(allowedInTokens, rune(c)) {
			return false
		}
	}
	return len(text) <= maxTokenLength
}
