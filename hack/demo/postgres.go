// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

//go:embed manifests/postgres.yaml
var postgresManifest []byte

// postgres is a PostgreSQL server of the demo's own, with TLS: a database of users, and
// one that the issuer keeps sessions in.
type postgres struct {
	paths paths
	say   func(string, ...any)
	out   io.Writer

	port    string
	secret  string // the administrator's password
	ca      []byte
	server  *process
	endIt   context.CancelFunc
	account *syscall.Credential // whom the server runs as; nil for ourselves
}

// The set-up of the pages on the store and the user source.
const (
	databases = `CREATE ROLE shop LOGIN PASSWORD 'shop-demo';
CREATE DATABASE shop;
CREATE ROLE tokenward LOGIN PASSWORD 'tokenward-demo';
CREATE DATABASE tokenward OWNER tokenward;`
	usersTable = `CREATE TABLE users (
  id       text PRIMARY KEY,
  phone    text NOT NULL,
  password text NOT NULL,
  role     text,
  disabled boolean NOT NULL DEFAULT false
);
GRANT SELECT ON users TO shop;`
)

func (b *postgres) issuerFlags() []string {
	// A database at a loopback address is refused, unless whoever runs the operator allows it.
	return []string{"--allow-outbound-cidr=127.0.0.0/8"}
}

func (b *postgres) hint() string {
	return fmt.Sprintf("PGPASSWORD=%s psql 'host=127.0.0.1 port=%s user=demo dbname=tokenward sslmode=require' \\\n        -c 'TABLE tokenward.sessions'", b.secret, b.port)
}

func (b *postgres) stop() error {
	if b.server == nil {
		return nil
	}
	b.endIt()
	return b.server.wait()
}

func (b *postgres) prepare(ctx context.Context) error {
	b.say("starting PostgreSQL, with TLS")
	initdb, err := find("initdb")
	if err != nil {
		return err
	}
	server, err := find("postgres")
	if err != nil {
		return err
	}
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return err
	}
	b.port, b.secret = ports[0], rand.Text()
	base := filepath.Join(b.paths.dir, "postgres")
	data := filepath.Join(base, "data")
	if err := b.own(base); err != nil {
		return err
	}
	password := filepath.Join(base, "password")
	if err := b.write(password, []byte(b.secret)); err != nil {
		return err
	}
	command := b.command(ctx, initdb, "--pgdata="+data, "--username=demo", "--pwfile="+password, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, output)
	}
	certificate, key, err := selfSigned()
	if err != nil {
		return err
	}
	b.ca = certificate
	if err := errors.Join(b.write(filepath.Join(data, "server.crt"), certificate), b.write(filepath.Join(data, "server.key"), key)); err != nil {
		return err
	}
	log, err := os.Create(b.paths.log("postgres"))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	// It ends after the issuer, and so not with ctx.
	ctx, b.endIt = context.WithCancel(context.WithoutCancel(ctx))
	command = b.command(ctx, server, "-D", data, "-p", b.port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "ssl=on")
	command.Stdout, command.Stderr = log, log
	b.server, err = start(ctx, "postgres", b.paths.log("postgres"), command)
	return err
}

func (b *postgres) apply(ctx context.Context, p *platform) error {
	if err := until(ctx, func(ctx context.Context) error { return b.execute(ctx, "postgres", "SELECT 1") }); err != nil {
		return fmt.Errorf("postgres does not answer, see %s: %w", b.paths.log("postgres"), err)
	}
	b.say("psql: two databases, and the table users")
	_, _ = fmt.Fprintln(b.out, indent([]byte(databases+"\n\\connect shop\n"+usersTable)))
	// Each by itself: CREATE DATABASE cannot be part of a transaction, as several would be.
	for statement := range strings.Lines(databases) {
		if err := b.execute(ctx, "postgres", statement); err != nil {
			return err
		}
	}
	if err := b.execute(ctx, "shop", usersTable); err != nil {
		return err
	}
	for _, u := range []user{alice, bob} {
		hash, err := hashPassword(ctx, b.paths, u.Password)
		if err != nil {
			return err
		}
		if err := b.execute(ctx, "shop", "INSERT INTO users (id, phone, password, role) VALUES ($1, $2, $3, $4)", u.ID, u.Phone, hash, u.Role); err != nil {
			return err
		}
	}
	if err := createSecret(ctx, p, "shop-users-db", map[string]string{"dsn": b.url("shop", "shop-demo", "shop"), "ca.crt": string(b.ca)}); err != nil {
		return err
	}
	if err := createSecret(ctx, p, "shop-sessions-db", map[string]string{"url": b.url("tokenward", "tokenward-demo", "tokenward"), "ca.crt": string(b.ca)}); err != nil {
		return err
	}
	return p.apply(ctx, postgresManifest)
}

func (b *postgres) remove(ctx context.Context, s *story, id string) error {
	_, _ = fmt.Fprintf(s.out, "    $ psql shop -c \"DELETE FROM users WHERE id = '%s'\"\n", id)
	return b.execute(ctx, "shop", "DELETE FROM users WHERE id = $1", id)
}

func (b *postgres) url(name, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(name, password), Host: net.JoinHostPort("127.0.0.1", b.port),
		Path: "/" + database, RawQuery: "sslmode=verify-full",
	}
	return u.String()
}

func (b *postgres) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(b.url("demo", b.secret, database))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.ca)
	config.TLSConfig.RootCAs = roots
	return pgx.ConnectConfig(ctx, config)
}

// execute runs a statement, or several without arguments, as the administrator.
func (b *postgres) execute(ctx context.Context, database, statement string, arguments ...any) error {
	conn, err := b.connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // read to its end
	if _, err := conn.Exec(ctx, statement, arguments...); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
