// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/storetest"
	"github.com/tokenward/tokenward/internal/testservers"
)

// canary is in every secret part of a URL, to be looked for in all that is said.
const canary = "k4n4rienv0gel"

// to has every connection go to the server, whatever host the URL names.
func to(server *testservers.PostgresServer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, net.JoinHostPort(server.Host, fmt.Sprint(server.Port)))
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	plain, secure := testservers.Postgres(t), testservers.Postgres(t, testservers.PostgresTLS())
	database := plain.Database(t)
	plain.Exec(t, "postgres", "CREATE ROLE weak"+canary+" LOGIN PASSWORD '"+canary+"'")
	plain.Exec(t, "postgres", "CREATE ROLE owner LOGIN PASSWORD '"+canary+"'")
	plain.Exec(t, "postgres", "CREATE ROLE many LOGIN PASSWORD '"+canary+"' CONNECTION LIMIT 0")
	newer, foreign, given := plain.Database(t), plain.Database(t), plain.Database(t)
	if err := open(t, testConfig(plain, newer)).Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	plain.Exec(t, newer, "INSERT INTO tokenward.migrations (version) VALUES (999)")
	if err := open(t, testConfig(plain, foreign)).Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	plain.Exec(t, given, "CREATE SCHEMA tokenward AUTHORIZATION owner")
	readOnly := plain.Database(t)
	plain.Exec(t, "postgres", "ALTER DATABASE "+readOnly+" SET default_transaction_read_only = on")
	secureDatabase := secure.Database(t)

	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	unused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := unused.Addr().String()
	_ = unused.Close()

	tests := map[string]struct {
		config Config
		kind   Kind // empty: good
	}{
		"a good address":                  {Config{URL: Secret(plain.URL(database))}, ""},
		"a good address with TLS":         {Config{URL: Secret(secure.URL(secureDatabase)), CA: secure.CA}, ""},
		"a schema made by the owner":      {Config{URL: Secret(plain.URLFor("owner", canary, given))}, ""},
		"the primary is the second host":  {Config{URL: Secret(strings.Replace(plain.URL(database), "@", "@"+nobody+",", 1))}, ""},
		"nobody listens there":            {Config{URL: Secret("postgres://u:" + canary + "@" + nobody + "/db?sslmode=disable")}, Unreachable},
		"no such host":                    {Config{URL: Secret("postgres://u:" + canary + "@" + canary + ".invalid/db?sslmode=disable")}, Unreachable},
		"the server never answers":        {Config{URL: Secret("postgres://u:" + canary + "@" + silent.Addr().String() + "/db?sslmode=disable"), Timeout: 300 * time.Millisecond}, Unreachable},
		"wrong password":                  {Config{URL: Secret(plain.URLFor("weak"+canary, canary+"x", database))}, CredentialsRefused},
		"no such role":                    {Config{URL: Secret(plain.URLFor("nobody"+canary, canary, database))}, CredentialsRefused},
		"no such database":                {Config{URL: Secret(plain.URL("none" + canary))}, DatabaseMissing},
		"may not create the schema":       {Config{URL: Secret(plain.URLFor("weak"+canary, canary, plain.Database(t)))}, PermissionDenied},
		"may not use the schema":          {Config{URL: Secret(plain.URLFor("weak"+canary, canary, foreign))}, PermissionDenied},
		"no connection is left":           {Config{URL: Secret(plain.URLFor("many", canary, database))}, Busy},
		"the schema is newer":             {Config{URL: Secret(plain.URL(newer))}, SchemaNewer},
		"the server takes no writes":      {Config{URL: Secret(plain.URL(readOnly))}, ReadOnly},
		"the CA is another one":           {Config{URL: Secret(secure.URL(secureDatabase)), CA: testservers.Postgres(t, testservers.PostgresTLS()).CA}, TLSNotTrusted},
		"no CA, and the system has none":  {Config{URL: Secret(secure.URL(secureDatabase))}, TLSNotTrusted},
		"the certificate is of another":   {Config{URL: Secret(strings.Replace(secure.URL(secureDatabase), "localhost", canary+".example.com", 1)), CA: secure.CA, Dial: to(secure)}, TLSNotTrusted},
		"the server speaks no TLS":        {Config{URL: Secret(strings.Replace(plain.URL(database), "sslmode=disable", "sslmode=verify-full", 1)), CA: secure.CA}, TLSNotTrusted},
		"no sslmode means to be verified": {Config{URL: Secret(strings.Replace(plain.URL(database), "?sslmode=disable", "", 1)), CA: secure.CA}, TLSNotTrusted},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			test.config.SweepInterval = -1
			test.config.Log = logr.FromSlogHandler(slog.NewTextHandler(&log, nil))
			d := open(t, test.config)
			err := d.Check(t.Context())
			if test.kind == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var ours *Error
			if !errors.As(err, &ours) || ours.Kind != test.kind {
				t.Errorf("%v, want the kind %s", err, test.kind)
			}
			// The same in use: an outage, never a session that is not found.
			_, err = d.Store(storetest.NewPolicyID(), StoreOptions{}).Load(t.Context(), "id")
			if !errors.As(err, &ours) || ours.Kind != test.kind {
				t.Errorf("load: %v, want the kind %s", err, test.kind)
			}
			_ = d.Close()
			said := fmt.Sprintf("%v %+v %#v %s %#v", err, err, err, log.String(), test.config.URL)
			for ; err != nil; err = errors.Unwrap(err) {
				said += fmt.Sprintf("%#v", err)
			}
			for _, secret := range []string{canary, "admin-of-the-test", "postgres://"} {
				if strings.Contains(said, secret) {
					t.Errorf("%q is in what is said: %s", secret, said)
				}
			}
		})
	}
}

func TestAURLThatIsNotUnderstoodIsRefusedByName(t *testing.T) {
	t.Setenv("PGHOST", "/tmp")
	t.Setenv("PGUSER", "somebody")
	for _, test := range []struct{ url, ca, remedy string }{
		{"", "", "postgres://"},
		{"host=db user=u password=" + canary, "", "postgres://"},
		{"mysql://u:" + canary + "@h/db", "", "postgres://"},
		{"postgres://u:" + canary + "%zz@h/db", "", "percent-encoded"},
		{"postgres://u:" + canary + "@h:port/db", "", "percent-encoded"},
		{"postgres://:" + canary + "@h/db", "", "user, host and database"},
		{"postgres://u:" + canary + "@/db", "", "user, host and database"},
		{"postgres://u:" + canary + "@h", "", "user, host and database"},
		{"postgres://u:" + canary + "@%2Fvar%2Frun/db", "", "percent-encoded"},
		{"postgres://u:" + canary + "@h,/db", "", "Unix socket"},
		{"postgres://u:" + canary + "@h/db?host=/tmp", "", "parameter other"},
		{"postgres://u:" + canary + "@h/db?passfile=/etc/passwd", "", "parameter other"},
		{"postgres://u:" + canary + "@h/db?sslrootcert=/etc/passwd", "", "parameter other"},
		{"postgres://u:" + canary + "@h/db?service=" + canary, "", "parameter other"},
		{"postgres://u:" + canary + "@h/db?sslmode=require", "", "verify-full"},
		{"postgres://u:" + canary + "@h/db?sslmode=prefer", "", "verify-full"},
		{"postgres://u:" + canary + "@h/db?sslmode=verify-full&connect_timeout=soon", "", "parameter"},
		{"postgres://u:" + canary + "@h/db?sslmode=disable", "-----BEGIN CERTIFICATE-----", "ca.crt"},
		{"postgres://u:" + canary + "@h/db", "no certificate", "ca.crt"},
	} {
		_, err := Open(Config{URL: Secret(test.url), CA: []byte(test.ca)})
		var ours *Error
		switch {
		case !errors.As(err, &ours) || ours.Kind != Misconfigured:
			t.Errorf("%s: %v", test.url, err)
		case !strings.Contains(err.Error(), test.remedy):
			t.Errorf("%s: %q does not speak of %q", test.url, err, test.remedy)
		case strings.Contains(fmt.Sprintf("%v %#v", err, err), canary):
			t.Errorf("%s: the error has the password: %v", test.url, err)
		}
	}
}

func TestNothingButTheURLDecidesWhereToConnect(t *testing.T) {
	for name, value := range map[string]string{
		"PGHOST": "elsewhere", "PGPORT": "1", "PGUSER": "other", "PGPASSWORD": canary, "PGDATABASE": "other", "PGSSLMODE": "disable",
		"PGOPTIONS": "-c search_path=other", "PGTARGETSESSIONATTRS": "standby",
	} {
		t.Setenv(name, value)
	}
	got, err := Config{URL: "postgres://u@one,two:6543/db"}.complete().connection()
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != "one" || got.User != "u" || got.Database != "db" || got.Password != "" || len(got.RuntimeParams) != 1 {
		t.Errorf("connects to %s as %s, database %s, password %q, %v", got.Host, got.User, got.Database, got.Password, got.RuntimeParams)
	}
	if len(got.Fallbacks) != 1 || got.Fallbacks[0].Host != "two" || got.Fallbacks[0].TLSConfig.ServerName != "two" || got.TLSConfig.ServerName != "one" {
		t.Errorf("hosts %+v", got.Fallbacks)
	}
}

func TestASecretShowsItselfToNobody(t *testing.T) {
	secret := Secret(canary)
	encoded, err := json.Marshal(map[string]any{"url": secret})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "url", secret, "config", Config{URL: secret})
	said := fmt.Sprintf("%v %s %q %#v %+v", secret, secret, secret, secret, Config{URL: secret}) + string(encoded) + log.String()
	if strings.Contains(said, canary) {
		t.Error(said)
	}
}

func TestAStoreSaysWhetherThereIsRoom(t *testing.T) {
	server := testservers.Postgres(t)
	d := open(t, testConfig(server, server.Database(t)))
	now := time.Now()
	clock := func() time.Time { return now }
	store := d.Store(storetest.NewPolicyID(), StoreOptions{MaxSessions: 1, Now: clock})
	if err := store.Room(t.Context()); err != nil {
		t.Errorf("an empty store: %v", err)
	}
	create(t, store)
	if err := store.Room(t.Context()); !errors.Is(err, session.ErrFull) {
		t.Errorf("a full store: %v", err)
	}
	if err := d.Store(store.policy, StoreOptions{Now: clock}).Room(t.Context()); err != nil {
		t.Errorf("a store without a limit: %v", err)
	}
	server.Exec(t, d.pool.Config().ConnConfig.Database, "DELETE FROM tokenward.sessions")
	now = now.Add(recountFull)
	if err := store.Room(t.Context()); err != nil {
		t.Errorf("after its session has died: %v", err)
	}
}
