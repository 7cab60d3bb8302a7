// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package testservers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// MariaDBServer is a running MariaDB, reached over TCP with a password.
type MariaDBServer struct {
	// Host and Port are where it listens.
	Host string
	Port int
	// User has all rights, Password is its password.
	User, Password string
	// CA is the certificate of who signed the server's, in PEM; empty without TLS.
	CA []byte

	binary  string
	args    []string
	process *process
	names   atomic.Int64
}

// MariaDBOption changes how the server is set up.
type MariaDBOption func(*mariadbSetup)

type mariadbSetup struct{ tls bool }

// MariaDBTLS has the server speak TLS, with a certificate for localhost of a CA of
// its own.
func MariaDBTLS() MariaDBOption {
	return func(s *mariadbSetup) { s.tls = true }
}

// MariaDB starts a server of its own for the test.
func MariaDB(tb testing.TB, options ...MariaDBOption) *MariaDBServer {
	tb.Helper()
	var setup mariadbSetup
	for _, option := range options {
		option(&setup)
	}
	const debianPackage = "mariadb-server"
	install := binary(tb, "mariadb-install-db", debianPackage)
	m := &MariaDBServer{ //nolint:gosec // the password of a server that lives as long as the test
		Host: "localhost", Port: freePort(tb), User: "admin", Password: "admin-of-the-test",
		binary: binary(tb, "mariadbd", debianPackage),
	}
	base := folder(tb)
	data := filepath.Join(base, "data")
	run(tb, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
	accounts := filepath.Join(base, "accounts.sql")
	writeFor(tb, accounts, fmt.Appendf(nil,
		"CREATE OR REPLACE USER '%s'@'%%' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO '%s'@'%%' WITH GRANT OPTION;\n", m.User, m.Password, m.User))
	m.args = []string{
		"--no-defaults", "--datadir=" + data, "--init-file=" + accounts, "--port=" + strconv.Itoa(m.Port), "--bind-address=127.0.0.1",
		"--socket=" + filepath.Join(base, "s"), "--pid-file=" + filepath.Join(base, "pid"), "--skip-name-resolve", "--skip-log-bin",
		"--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--performance-schema=OFF",
	}
	if setup.tls {
		ca, certificate, key := selfSigned(tb, m.Host)
		m.CA = ca
		writeFor(tb, filepath.Join(base, "server.crt"), certificate)
		writeFor(tb, filepath.Join(base, "server.key"), key)
		m.args = append(m.args, "--ssl-cert="+filepath.Join(base, "server.crt"), "--ssl-key="+filepath.Join(base, "server.key"))
	}
	m.Start(tb)
	return m
}

// Start starts it again where it was, after [MariaDBServer.Stop].
func (m *MariaDBServer) Start(tb testing.TB) {
	tb.Helper()
	m.process = start(tb, syscall.SIGTERM, m.probe, m.binary, m.args...)
}

// Stop shuts it down as an administrator does, and ends all connections.
func (m *MariaDBServer) Stop() { m.process.stop() }

// Database makes a database of its own and returns its name.
func (m *MariaDBServer) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test%d", m.names.Add(1))
	m.Exec(tb, "", "CREATE DATABASE "+name)
	return name
}

// DSN is the address of a database for the user with all rights, in the form of
// github.com/go-sql-driver/mysql.
func (m *MariaDBServer) DSN(database string) string { return m.DSNFor(m.User, m.Password, database) }

// DSNFor is the address of a database for another user. A server with TLS is to be
// verified, one without is asked for none.
func (m *MariaDBServer) DSNFor(user, password, database string) string {
	return fmt.Sprintf("%s:%s@tcp(%s)/%s?tls=%t", user, password, net.JoinHostPort(m.Host, strconv.Itoa(m.Port)), database, len(m.CA) > 0)
}

// Exec runs statements as the user with all rights, in one connection.
func (m *MariaDBServer) Exec(tb testing.TB, database string, statements ...string) {
	tb.Helper()
	db, err := m.open(database)
	if err != nil {
		tb.Fatalf("open %q: %v", database, err)
	}
	defer func() { _ = db.Close() }()
	for _, statement := range statements {
		if _, err := db.ExecContext(context.Background(), statement); err != nil { //nolint:usetesting // also called from Cleanup
			tb.Fatalf("%s: %v", statement, err)
		}
	}
}

func (m *MariaDBServer) open(database string) (*sql.DB, error) {
	config := mysql.NewConfig()
	config.User, config.Passwd, config.DBName = m.User, m.Password, database
	config.Net, config.Addr = "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(m.Port))
	config.Logger = &mysql.NopLogger{}
	if len(m.CA) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(m.CA) {
			return nil, errors.New("the server's CA is no certificate")
		}
		config.TLS = &tls.Config{RootCAs: pool, ServerName: m.Host, MinVersion: tls.VersionTLS12}
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, fmt.Errorf("configure the driver: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

func (m *MariaDBServer) probe(ctx context.Context) error {
	db, err := m.open("")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return db.PingContext(ctx)
}
