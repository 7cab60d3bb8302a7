// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenward/tokenward/internal/users"
)

// The environment and the home directory are the issuer's, and who writes a policy must
// not get at them.
func TestNothingButTheDSNDecidesHowToConnect(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	write := func(name, text string) string {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	passwords := write(".pgpass", "*:*:*:*:of-the-issuer\n")
	services := write(".pg_service.conf", "[shop]\nuser=of-the-issuer\nhost=elsewhere\n")
	// Read, these would be errors: they are no certificates.
	for _, name := range []string{"postgresql.crt", "postgresql.key", "root.crt"} {
		write(filepath.Join(".postgresql", name), "none")
	}
	for name, value := range map[string]string{
		"PGHOST": "elsewhere", "PGPORT": "1", "PGDATABASE": "other", "PGUSER": "of-the-issuer", "PGPASSWORD": "of-the-issuer", "PGPASSFILE": passwords,
		"PGSERVICEFILE": services, "PGSSLMODE": "disable", "PGSSLROOTCERT": "/nowhere", "PGSSLCERT": "/nowhere", "PGSSLKEY": "/nowhere", "PGSSLPASSWORD": "x",
		"PGSSLCERTMODE": "x", "PGSSLSNI": "0", "PGSSLNEGOTIATION": "direct", "PGREQUIREAUTH": "x", "PGCHANNELBINDING": "x", "PGTARGETSESSIONATTRS": "x",
		"PGCONNECT_TIMEOUT": "x", "PGMINPROTOCOLVERSION": "x", "PGMAXPROTOCOLVERSION": "x", "PGAPPNAME": "other", "PGOPTIONS": "-c search_path=other", "PGTZ": "other",
	} {
		t.Setenv(name, value)
	}
	for _, dsn := range []string{"postgres://u@db.example/shop?search_path=people", "host=db.example user=u dbname=shop search_path=people"} {
		got, err := postgresConfig(Options{DSN: users.NewCredential(dsn)})
		if err != nil {
			t.Fatalf("%s: %v", dsn, err)
		}
		if got.Host != "db.example" || got.Port != 5432 || got.User != "u" || got.Database != "shop" || got.Password != "" || len(got.Fallbacks) != 0 {
			t.Errorf("%s: connects to %s:%d as %q with password %q, database %s, %d more", dsn, got.Host, got.Port, got.User, got.Password, got.Database, len(got.Fallbacks))
		}
		if got.TLSConfig == nil || got.TLSConfig.ServerName != "db.example" || len(got.TLSConfig.Certificates) != 0 || got.TLSConfig.RootCAs != nil || got.SSLNegotiation != "postgres" {
			t.Errorf("%s: TLS is %+v, by %s", dsn, got.TLSConfig, got.SSLNegotiation)
		}
		if len(got.RuntimeParams) != 1 || got.RuntimeParams["search_path"] != "people" || got.ConnectTimeout != 0 || got.ValidateConnect != nil {
			t.Errorf("%s: %v, timeout %v", dsn, got.RuntimeParams, got.ConnectTimeout)
		}
		if _, err := postgresConfig(Options{DSN: users.NewCredential(strings.Replace(strings.Replace(dsn, "u@", "", 1), "user=u", "", 1))}); err == nil || !strings.Contains(err.Error(), "names no user") {
			t.Errorf("without a user: %v", err)
		}
	}
	// It cannot be unset, and what it says is not taken.
	t.Setenv("PGSERVICE", "shop")
	if _, err := postgresConfig(Options{DSN: users.NewCredential("postgres://u@db.example/shop")}); err == nil || !strings.Contains(err.Error(), "PGSERVICE") {
		t.Errorf("with a service: %v", err)
	}
}

func TestAValueIsTakenAsItIsMeant(t *testing.T) {
	const password = `a'b\c /#?@:%`
	for _, dsn := range []string{
		"postgres://u:a%27b%5Cc%20%2F%23%3F%40%3A%25@db.example/shop",
		"postgresql://db.example/shop?user=u&password=a%27b%5Cc%20%2F%23%3F%40%3A%25",
		`host=db.example user = u password='a\'b\\c /#?@:%' dbname=shop`,
		`  user=u password=a\'b\\c\ /#?@:% database=shop host=db.example`,
	} {
		got, err := postgresConfig(Options{DSN: users.NewCredential(dsn)})
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		if got.User != "u" || got.Password != password || got.Host != "db.example" || got.Database != "shop" {
			t.Errorf("%s: %q %q %q %q", dsn, got.User, got.Password, got.Host, got.Database)
		}
	}
}
