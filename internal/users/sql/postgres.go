// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"
)

// cancelPatience is how long a PostgreSQL server gets to end a query that has timed
// out before its connection is cut.
const cancelPatience = 500 * time.Millisecond

// postgresKeys are what a DSN may hold. What is missing reads files of the issuer
// (sslrootcert, sslkey, passfile, service), which are not the policy author's.
func postgresKeys() []string {
	return []string{
		"host", "port", "user", "password", "dbname", "sslmode",
		"application_name", "channel_binding", "search_path", "target_session_attrs",
	}
}

func postgresConnector(o Options, dial dialer) (driver.Connector, error) {
	config, err := pgx.ParseConfigWithOptions(strings.TrimSpace(o.DSN.Reveal()), pgx.ParseConfigOptions{
		ParseConfigOptions: pgconn.ParseConfigOptions{ConnStringAllowedKeys: postgresKeys()},
	})
	if err != nil {
		// The driver's own words may quote a password that is not where it belongs.
		return nil, fmt.Errorf("dsn: is not one that PostgreSQL understands, or has an option other than %s: "+
			"write postgres://user:password@host:5432/database?sslmode=verify-full, with special characters escaped as %%40",
			strings.Join(postgresKeys(), ", "))
	}
	if err := securePostgres(&config.Config, o); err != nil {
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
	return stdlib.GetConnector(*config), nil
}

// securePostgres makes verify-full of every sslmode but disable: the modes between
// them can be talked out of TLS, or do not look at the certificate.
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
		if strings.HasPrefix(s.host, "/") || strings.HasPrefix(s.host, "@") {
			return errors.New("dsn: has no host, or a Unix socket, which would be the issuer's own: name the database's host")
		}
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
