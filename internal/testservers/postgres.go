// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package testservers

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PostgresServer is a running PostgreSQL, reached over TCP with a password.
type PostgresServer struct {
	// Host and Port are where it listens.
	Host string
	Port int
	// User is a superuser, Password its password.
	User, Password string
	// CA is the certificate of who signed the server's, in PEM; empty without TLS.
	CA []byte

	binary  string
	args    []string
	data    string
	process *process
	names   atomic.Int64
}

// PostgresOption changes how the server is set up.
type PostgresOption func(*postgresSetup)

type postgresSetup struct {
	tls      bool
	settings []string
}

// PostgresTLS has the server speak TLS, with a certificate for localhost that is its
// own CA.
func PostgresTLS() PostgresOption {
	return func(s *postgresSetup) { s.tls = true }
}

// PostgresSetting sets a parameter of postgresql.conf.
func PostgresSetting(name, value string) PostgresOption {
	return func(s *postgresSetup) { s.settings = append(s.settings, "-c", name+"="+value) }
}

// Postgres starts a server of its own for the test. What it commits survives
// [PostgresServer.Restart], but not the machine: fsync is off.
func Postgres(tb testing.TB, options ...PostgresOption) *PostgresServer {
	tb.Helper()
	var setup postgresSetup
	for _, option := range options {
		option(&setup)
	}
	const debianPackage = "postgresql"
	initdb := binary(tb, "initdb", debianPackage)
	p := &PostgresServer{ //nolint:gosec // G101: the password of a server that ends with the test
		Host: "localhost", Port: freePort(tb), User: "admin", Password: "admin-of-the-test",
		binary: binary(tb, "postgres", debianPackage),
	}
	base := folder(tb)
	p.data = filepath.Join(base, "data")
	passwords := filepath.Join(base, "password")
	writeFor(tb, passwords, []byte(p.Password+"\n"))
	run(tb, initdb, "--pgdata="+p.data, "--username="+p.User, "--pwfile="+passwords, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	p.args = append([]string{
		"-D", p.data, "-p", strconv.Itoa(p.Port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200", "-c", "shared_buffers=64MB",
	}, setup.settings...)
	if setup.tls {
		ca, certificate, key := selfSigned(tb, "localhost")
		p.CA = ca
		writeFor(tb, filepath.Join(p.data, "server.crt"), certificate)
		writeFor(tb, filepath.Join(p.data, "server.key"), key)
		p.args = append(p.args, "-c", "ssl=on")
	}
	p.Start(tb)
	return p
}

// Start starts it again where it was, after [PostgresServer.Stop] or
// [PostgresServer.Kill].
func (p *PostgresServer) Start(tb testing.TB) {
	tb.Helper()
	// SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
	p.process = start(tb, syscall.SIGINT, p.probe, p.binary, p.args...)
}

// Stop shuts it down as an administrator does, and ends all connections.
func (p *PostgresServer) Stop() { p.process.stop() }

// Kill ends it as a crash does, with all its processes, which the shared memory
// would else keep busy.
func (p *PostgresServer) Kill() {
	// SIGQUIT is PostgreSQL's immediate shutdown: no checkpoint, recovery at the start.
	_ = p.process.cmd.Process.Signal(syscall.SIGQUIT)
	<-p.process.exited
}

// Restart stops and starts it.
func (p *PostgresServer) Restart(tb testing.TB) {
	tb.Helper()
	p.Stop()
	p.Start(tb)
}

// Standby restarts it as a server in recovery, which answers queries but takes no
// writes, or as a primary again.
func (p *PostgresServer) Standby(tb testing.TB, standby bool) {
	tb.Helper()
	p.Stop()
	signal := filepath.Join(p.data, "standby.signal")
	if standby {
		writeFor(tb, signal, nil)
	} else if err := os.Remove(signal); err != nil {
		tb.Fatal(err)
	}
	p.Start(tb)
}

// Database makes a database of its own and returns its name.
func (p *PostgresServer) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test%d", p.names.Add(1))
	p.Exec(tb, "postgres", "CREATE DATABASE "+name)
	return name
}

// URL is the address of a database for the superuser.
func (p *PostgresServer) URL(database string) string { return p.URLFor(p.User, p.Password, database) }

// URLFor is the address of a database for another role. A server with TLS is to be
// verified, one without is asked for none.
func (p *PostgresServer) URLFor(user, password, database string) string {
	mode := "disable"
	if len(p.CA) > 0 {
		mode = "verify-full"
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password), Host: net.JoinHostPort(p.Host, strconv.Itoa(p.Port)),
		Path: "/" + database, RawQuery: "sslmode=" + mode,
	}
	return u.String()
}

// Exec runs statements as the superuser.
func (p *PostgresServer) Exec(tb testing.TB, database, statements string) {
	tb.Helper()
	ctx := context.Background() //nolint:usetesting // also called from Cleanup
	conn, err := p.connect(ctx, database)
	if err == nil {
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, statements)
	}
	if err != nil {
		tb.Fatalf("%s: %v", statements, err)
	}
}

// connect does without verification of the server, which is our own.
func (p *PostgresServer) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	u, err := url.Parse(p.URL(database))
	if err != nil {
		return nil, fmt.Errorf("make the address: %w", err)
	}
	u.RawQuery = "sslmode=prefer"
	return pgx.Connect(ctx, u.String())
}

func (p *PostgresServer) probe(ctx context.Context) error {
	conn, err := p.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}
