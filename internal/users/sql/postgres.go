// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"
)

// cancelPatience is how long a PostgreSQL server gets to end a query that has timed
// out before its connection is cut.
const cancelPatience = 500 * time.Millisecond

func postgresConnector(o Options, dial dialer, lost *losses) (driver.Connector, error) {
	config, err := postgresConfig(o)
	if err != nil {
		return nil, err
	}
	config.DialFunc = pgconn.DialFunc(dial)
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		f := pgproto3.NewFrontend(r, w)
		f.SetMaxBodyLen(maxExchange) // a message is given memory before it is read
		return f
	}
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelPatience}
	}
	return newPostgresConnections(config, lost), nil
}

// postgresConfig is made of the DSN and nothing else: not of the environment and the
// files that PostgreSQL's clients read on their own, which are the issuer's.
func postgresConfig(o Options) (*pgx.ConnConfig, error) {
	dsn, err := parsePostgresDSN(strings.TrimSpace(o.DSN.Reveal()))
	if err != nil {
		return nil, err
	}
	if dsn["target_session_attrs"] == "read-write" {
		dsn["target_session_attrs"] = "primary" // by the other word no session is found that only reads
	}
	config, err := pgx.ParseConfig(dsn.text())
	if err != nil { // which quotes the DSN
		return nil, errors.New("dsn: cannot be used while the issuer's environment has settings of PostgreSQL's clients, such as PGSERVICE")
	}
	config.RuntimeParams = map[string]string{}
	for _, name := range []string{"application_name", "search_path"} {
		if dsn[name] != "" {
			config.RuntimeParams[name] = dsn[name]
		}
	}
	// The dialer resolves the name, and tries its addresses side by side.
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	return config, securePostgres(&config.Config, o)
}

// securePostgres verifies the server unless there is to be no TLS. The DSN has no other
// mode: those between can be talked out of TLS, or do not look at the certificate.
func securePostgres(config *pgconn.Config, o Options) error {
	roots, err := o.roots()
	if err != nil {
		return err
	}
	type server struct {
		host string
		port uint16
	}
	servers, encrypted := []server{{config.Host, config.Port}}, config.TLSConfig != nil
	for _, f := range config.Fallbacks {
		encrypted = encrypted || f.TLSConfig != nil
		if next := (server{f.Host, f.Port}); servers[len(servers)-1] != next {
			servers = append(servers, next)
		}
	}
	config.Fallbacks = nil
	for i, s := range servers {
		f := &pgconn.FallbackConfig{Host: s.host, Port: s.port}
		if encrypted {
			f.TLSConfig = &tls.Config{ServerName: s.host, RootCAs: roots, MinVersion: tls.VersionTLS12}
		}
		if i == 0 {
			config.TLSConfig = f.TLSConfig
			continue
		}
		config.Fallbacks = append(config.Fallbacks, f)
	}
	if encrypted {
		return nil
	}
	if roots != nil {
		return errors.New("dsn: has sslmode=disable, but there is a CA to verify the server with: remove one of them")
	}
	config.RequireAuth = "!password" // without TLS the password would be on the wire as it stands
	return nil
}
