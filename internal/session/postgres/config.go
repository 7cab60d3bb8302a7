// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tokenward/tokenward/internal/outbound"
)

// Secret is text that shows itself to nobody who prints it.
type Secret string

const redacted = "[redacted]"

func (Secret) String() string { return redacted }

// GoString is what %#v prints.
func (Secret) GoString() string { return redacted }

// LogValue is what slog prints.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is what JSON and YAML get.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Config of a database.
type Config struct {
	// URL is postgres://user:password@host:port/database, with one host or several
	// (host:port,host:port) of which the primary is looked for. It may have the
	// parameters sslmode (verify-full, the default, or disable) and connect_timeout (in
	// seconds). Everything else, and all that would have a file read, is refused.
	URL Secret
	// CA are the certificates, in PEM, that the server's own must come from. The
	// system's when empty.
	CA []byte
	// MaxConns is the size of the pool, 8 when 0. One more connection listens.
	MaxConns int32
	// Timeout is how long a call may take with all its retries, at most, and a statement
	// at the server. 5 s when 0.
	Timeout time.Duration
	// PollInterval is how often revocations are looked for when no notification comes.
	// 2 s when 0.
	PollInterval time.Duration
	// SweepInterval is how often dead sessions are removed. 10 minutes when 0, never
	// when negative.
	SweepInterval time.Duration
	// Dial opens the connections; a plain net.Dialer when nil. It is where a caller that
	// was given the URL by somebody else can refuse addresses.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Log gets what an operator must know of. The zero value discards.
	Log logr.Logger
	// Now is time.Now when nil. It decides what is removed.
	Now func() time.Time
}

const (
	defaultMaxConns      = 8
	defaultTimeout       = 5 * time.Second
	defaultPollInterval  = 2 * time.Second
	defaultSweepInterval = 10 * time.Minute

	// What a server may send until it is asked the next thing, and in one message, to
	// which the driver gives memory before it reads it. A page of sessions comes near neither.
	maxExchange = 8 << 20
	maxMessage  = 1 << 20

	verifyFull = "verify-full"
	disable    = "disable"
)

func (c Config) complete() Config {
	if c.MaxConns <= 0 {
		c.MaxConns = defaultMaxConns
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.PollInterval <= 0 {
		c.PollInterval = defaultPollInterval
	}
	if c.SweepInterval == 0 {
		c.SweepInterval = defaultSweepInterval
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log.GetSink() == nil {
		c.Log = logr.Discard()
	}
	return c
}

// pool is the configuration of the connections.
func (c Config) pool() (*pgxpool.Config, error) {
	conn, err := c.connection()
	if err != nil {
		return nil, err
	}
	// The only way to make one. The connection in it is ours.
	pool, err := pgxpool.ParseConfig("host=localhost sslmode=disable")
	if err != nil {
		return nil, misconfigured("the environment has settings for PostgreSQL that are not understood")
	}
	pool.ConnConfig = conn
	pool.MaxConns = c.MaxConns
	pool.MaxConnLifetime = 30 * time.Minute
	pool.MaxConnLifetimeJitter = 5 * time.Minute
	pool.MaxConnIdleTime = 5 * time.Minute
	pool.PingTimeout = c.Timeout
	return pool, nil
}

// connection is made of the URL and nothing else: not of the environment and the files
// that PostgreSQL's clients read on their own.
func (c Config) connection() (*pgx.ConnConfig, error) {
	address, mode, err := c.address()
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ParseConfigWithOptions(address.String(), pgx.ParseConfigOptions{})
	if err != nil { // which holds the URL
		return nil, misconfigured("url has a host, a port or a parameter that is not understood; it must be postgres://user:password@host:port/database")
	}
	conn.Password, _ = address.User.Password()
	conn.RuntimeParams = map[string]string{"application_name": "tokenward"}
	conn.ValidateConnect = c.prepare
	if conn.ConnectTimeout == 0 || conn.ConnectTimeout > c.Timeout {
		conn.ConnectTimeout = c.Timeout
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	conn.DialFunc = outbound.Capped(dial, maxExchange, nil)
	conn.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		f := pgproto3.NewFrontend(r, w)
		f.SetMaxBodyLen(maxMessage)
		return f
	}
	// The dialer resolves the name, and tries its addresses side by side.
	conn.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	hosts := []string{conn.Host}
	for _, other := range conn.Fallbacks {
		hosts = append(hosts, other.Host)
	}
	for _, host := range hosts {
		if network, _ := pgconn.NetworkAddress(host, conn.Port); network != "tcp" {
			return nil, misconfigured("url leaves a host empty, or names a Unix socket; give the name of a host")
		}
	}
	if mode == disable {
		return conn, nil
	}
	var roots *x509.CertPool
	if len(c.CA) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(c.CA) {
			return nil, misconfigured("ca.crt holds no certificate in PEM")
		}
	}
	trust := func(host string) *tls.Config {
		return &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
	}
	conn.TLSConfig = trust(conn.Host)
	for _, other := range conn.Fallbacks {
		other.TLSConfig = trust(other.Host)
	}
	return conn, nil
}

// address is the URL with what it left open, and its sslmode.
func (c Config) address() (*url.URL, string, error) {
	address, err := url.Parse(string(c.URL))
	if err != nil { // which holds the URL
		return nil, "", misconfigured("url is no URL; special characters of the password must be percent-encoded")
	}
	database := strings.TrimPrefix(address.Path, "/")
	switch {
	case address.Scheme != "postgres" && address.Scheme != "postgresql":
		return nil, "", misconfigured("url must begin with postgres://")
	case address.User.Username() == "" || address.Host == "" || database == "":
		return nil, "", misconfigured("url must name user, host and database: postgres://user:password@host:port/database")
	}
	query := address.Query()
	for name := range query {
		if name != "sslmode" && name != "connect_timeout" {
			return nil, "", misconfigured("url has a parameter other than sslmode and connect_timeout; remove it")
		}
	}
	mode := query.Get("sslmode")
	switch mode {
	case "":
		mode = verifyFull
	case verifyFull:
	case disable:
		if len(c.CA) > 0 {
			return nil, "", misconfigured("url says sslmode=disable although there is a ca.crt; use sslmode=verify-full")
		}
	default:
		return nil, "", misconfigured("url has an sslmode that does not verify the server; use sslmode=verify-full, or sslmode=disable to do without TLS")
	}
	query.Set("sslmode", mode)
	address.RawQuery = query.Encode()
	return address, mode, nil
}
