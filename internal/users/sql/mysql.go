// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"
)

const mysqlForm = "write user:password@tcp(host:3306)/database?tls=true"

func mysqlConnector(o Options, dial dialer) (driver.Connector, error) {
	base, parameters := cutMySQLParameters(strings.TrimSpace(o.DSN.Reveal()))
	config, err := mysql.ParseDSN(base)
	switch {
	case err != nil:
		// The driver's own words may quote a password that is not where it belongs.
		return nil, errors.New("dsn: is not one that the MySQL driver understands: " + mysqlForm)
	case config.Net != "tcp":
		return nil, errors.New("dsn: must reach the database over TCP, as a Unix socket would be the issuer's own: " + mysqlForm)
	case config.User == "" || config.DBName == "":
		return nil, errors.New("dsn: must name a user and a database: " + mysqlForm)
	}
	encrypted := true
	for _, p := range parameters {
		if encrypted, err = applyMySQL(config, p, encrypted); err != nil {
			return nil, err
		}
	}
	if err := secureMySQL(config, encrypted, o); err != nil {
		return nil, err
	}
	config.DialFunc = dial
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, errors.New("dsn: is not one that the MySQL driver takes: " + mysqlForm)
	}
	return mysqlConnections{connector}, nil
}

// cutMySQLParameters takes the parameters off, where the driver would look for them:
// after the first question mark behind the last slash. The driver itself never sees
// them, since many change what a statement is or whom a password is shown to.
func cutMySQLParameters(text string) (base string, parameters []string) {
	slash := strings.LastIndexByte(text, '/')
	mark := strings.IndexByte(text[slash+1:], '?')
	if mark < 0 {
		return text, nil
	}
	mark += slash + 1
	return text[:mark], strings.Split(text[mark+1:], "&")
}

// applyMySQL takes one parameter. It names one that it refuses only when it is a
// parameter of the driver and not perhaps a piece of a password.
func applyMySQL(config *mysql.Config, parameter string, encrypted bool) (bool, error) {
	name, value, _ := strings.Cut(parameter, "=")
	switch name {
	case "":
		return encrypted, nil
	case "tls":
		switch value {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return true, errors.New("dsn: tls must be true or false: anything else can be talked out of TLS, or does not verify the server")
	case "charset":
		// The characters of a login are UTF-8, so the connection is, too.
		if value != "utf8mb4" {
			return encrypted, errors.New("dsn: charset must be utf8mb4, or not be there")
		}
		return encrypted, nil
	case "collation":
		if strings.Trim(value, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || !strings.HasPrefix(value, "utf8mb4_") {
			return encrypted, errors.New("dsn: collation must be one of utf8mb4")
		}
		return encrypted, config.Apply(mysql.Charset("utf8mb4", value))
	case "parseTime":
		if value != "true" {
			return encrypted, errors.New("dsn: parseTime is always on: remove it")
		}
		return encrypted, nil
	case "allowAllFiles", "allowCleartextPasswords", "allowFallbackToPlaintext", "allowNativePasswords", "allowOldPasswords",
		"checkConnLiveness", "clientFoundRows", "columnsWithAlias", "compress", "connectionAttributes", "interpolateParams", "loc",
		"maxAllowedPacket", "multiStatements", "readTimeout", "rejectReadOnly", "serverPubKey", "strict", "timeTruncate", "timeout", "writeTimeout":
		return encrypted, fmt.Errorf("dsn: %s must not be set: remove it", name)
	}
	return encrypted, errors.New("dsn: may have the parameters tls, charset, collation and parseTime only: " + mysqlForm)
}

func secureMySQL(config *mysql.Config, encrypted bool, o Options) error {
	roots, err := o.roots()
	if err != nil {
		return err
	}
	if encrypted {
		host, _, err := net.SplitHostPort(config.Addr)
		if err != nil {
			return errors.New("dsn: has no host and port: " + mysqlForm)
		}
		config.TLS = &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12}
	} else if roots != nil {
		return errors.New("dsn: has tls=false, but there is a CA to verify the server with: remove one of them")
	}
	config.ParseTime = true
	config.MultiStatements = false
	config.InterpolateParams = false // parameters travel apart from the statement
	config.AllowAllFiles = false
	config.AllowCleartextPasswords = false
	config.AllowFallbackToPlaintext = false
	config.AllowOldPasswords = false
	config.Logger = &mysql.NopLogger{} // errors are returned; the default writes to stderr
	return nil
}
