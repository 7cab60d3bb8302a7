// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/sql"
)

func TestTLS(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) { testTLS(t, postgres(t, testservers.PostgresTLS()), postgres(t)) })
	t.Run("MariaDB", func(t *testing.T) { testTLS(t, mariadb(t, testservers.MariaDBTLS()), mariadb(t)) })
}

func testTLS(t *testing.T, encrypted, plain *server) {
	t.Helper()
	database := encrypted.people(t)
	if _, err := open(t, encrypted.options(database)).Lookup(t.Context(), "alice"); err != nil {
		t.Errorf("with the right CA: %v", err)
	}
	o := encrypted.options(database)
	o.CA = nil
	isFault(t, open(t, o).Check(t.Context()), users.FaultTLS, "not trusted", "not issued by the given CA")
	// A name that leads to the same server, but is not in its certificate.
	o = encrypted.options(database)
	o.DSN = users.NewCredential(strings.Replace(o.DSN.Reveal(), "localhost", "127.0.0.2", 1))
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return loopback().DialContext(ctx, network, strings.Replace(address, "127.0.0.2", "127.0.0.1", 1))
	}
	isFault(t, open(t, o).Check(t.Context()), users.FaultTLS, "not for the host")
	_, err := open(t, o).Authenticate(t.Context(), byPhone("alice", "+82 10 1"))
	isFault(t, err, users.FaultTLS)
	// Nothing falls back to plain text, also where the DSN says nothing about TLS.
	o = plain.options(plain.people(t))
	for _, off := range []string{"?sslmode=disable", "?tls=false"} {
		o.DSN = users.NewCredential(strings.Replace(o.DSN.Reveal(), off, "", 1))
	}
	isFault(t, open(t, o).Check(t.Context()), users.FaultTLS, "offers no TLS")
}

func TestAddresses(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	silent := listener.Addr().String()
	for name, test := range map[string]struct {
		address string
		dial    func(context.Context, string, string) (net.Conn, error)
		fault   users.Fault
		says    string
	}{
		"nobody listens":        {closedPort(t), loopback().DialContext, users.FaultAddress, "nothing answers"},
		"no such host":          {"db.example:1", unknownHost, users.FaultAddress, "does not resolve"},
		"an answer to nothing":  {silent, loopback().DialContext, users.FaultTimeout, "in time"},
		"loopback":              {silent, outbound.Guard{}.DialContext, users.FaultAddress, "loopback"},
		"metadata":              {"169.254.169.254:80", outbound.Guard{}.DialContext, users.FaultAddress, "link-local"},
		"loopback in IPv6 form": {"[::ffff:127.0.0.1]:80", outbound.Guard{}.DialContext, users.FaultAddress, "loopback"},
	} {
		for driver, form := range map[sql.Driver]string{
			sql.Postgres: "postgres://user-" + canary + ":" + canary + "@%s/db-" + canary + "?sslmode=disable",
			sql.MySQL:    "user-" + canary + ":" + canary + "@tcp(%s)/db-" + canary + "?tls=false",
		} {
			t.Run(name+", "+string(driver), func(t *testing.T) {
				o := (&server{driver: driver, dsn: func(_, _, _ string) string { return fmt.Sprintf(form, test.address) }}).options("")
				o.Dial = test.dial
				o.QueryTimeout = time.Second
				source := open(t, o)
				isFault(t, source.Check(t.Context()), test.fault, test.says)
				_, err := source.Authenticate(t.Context(), byPhone(canary, canary))
				isFault(t, err, test.fault, test.says)
			})
		}
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func unknownHost(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Name: canary, IsNotFound: true}}
}

func TestDSNs(t *testing.T) {
	const good = "postgres://u:" + canary + "@db.example:5432/shop"
	const my = "u:" + canary + "@tcp(db.example:3306)/shop"
	tests := map[string]struct {
		driver sql.Driver
		dsn    string
		says   string // empty: it is taken
	}{
		"postgres":                         {sql.Postgres, good, ""},
		"postgres, white space around":     {sql.Postgres, good + "\n", ""},
		"postgres, keywords":               {sql.Postgres, "host=db.example user=u password=" + canary + " dbname=shop sslmode=verify-full", ""},
		"postgres, two hosts":              {sql.Postgres, "postgres://u:" + canary + "@a.example,b.example/shop?target_session_attrs=any", ""},
		"postgres, search path":            {sql.Postgres, good + "?search_path=people", ""},
		"postgres, empty":                  {sql.Postgres, "", "host"},
		"postgres, no URL":                 {sql.Postgres, canary, "not one that PostgreSQL understands"},
		"postgres, unescaped password":     {sql.Postgres, "postgres://u:" + canary + "#/?@db.example/shop", "percent-encode"},
		"postgres, a slash in it":          {sql.Postgres, "postgres://u:" + canary + "/x@db.example/shop", "percent-encode"},
		"postgres, a slash after a port":   {sql.Postgres, "postgres://u:12/" + canary + "@db.example/shop", "percent-encode"},
		"postgres, an at sign in it":       {sql.Postgres, "postgres://u:a@" + canary + "@db.example/shop", "percent-encode"},
		"postgres, a percent sign in it":   {sql.Postgres, "postgres://u:100%z" + canary + "@db.example/shop", "percent-encode"},
		"postgres, a percent sign at last": {sql.Postgres, "postgres://u:" + canary + "%@db.example/shop", "percent-encode"},
		"postgres, escaped password":       {sql.Postgres, "postgres://u:%2F%23%3F%40" + canary + "@db.example/shop", ""},
		"postgres, brackets":               {sql.Postgres, "postgres://u:" + canary + "@[2001:db8::1]:5432/shop", ""},
		"postgres, half a bracket":         {sql.Postgres, "postgres://u:" + canary + "@[2001:db8::1/shop", "percent-encode"},
		"postgres, an escaped NUL":         {sql.Postgres, "postgres://u:" + canary + "%00@db.example/shop", "NUL"},
		"postgres, no user":                {sql.Postgres, "postgres://db.example/shop", "names no user"},
		"postgres, a password alone":       {sql.Postgres, "postgres://:" + canary + "@db.example/shop", "names no user"},
		"postgres, no user in keywords":    {sql.Postgres, "host=db.example password=" + canary, "names no user"},
		"postgres, no host":                {sql.Postgres, "postgres://u:" + canary + "@/shop", "has no host"},
		"postgres, one host of two":        {sql.Postgres, "postgres://u:" + canary + "@a.example,/shop", "has no host"},
		"postgres, a port that is none":    {sql.Postgres, "postgres://u@db.example:" + canary + "/shop", "has a port"},
		"postgres, ports for more hosts":   {sql.Postgres, "host=a,b,c port=1,2 user=u password=" + canary, "as many ports"},
		"postgres, no such sslmode":        {sql.Postgres, good + "?sslmode=" + canary, "sslmode must be verify-full or disable"},
		"postgres, TLS to anybody":         {sql.Postgres, good + "?sslmode=require", "sslmode=require does not verify the server: write sslmode=verify-full"},
		"postgres, TLS to some host":       {sql.Postgres, good + "?sslmode=verify-ca", "sslmode=verify-ca does not verify the server"},
		"postgres, TLS if it is there":     {sql.Postgres, "host=db.example user=u sslmode=prefer", "sslmode=prefer does not verify the server"},
		"postgres, TLS of another kind":    {sql.Postgres, good + "?ssl=true", "ssl must not be set: remove it"},
		"postgres, no such kind of host":   {sql.Postgres, good + "?target_session_attrs=" + canary, "target_session_attrs must be any"},
		"postgres, no end of a quote":      {sql.Postgres, "host=db.example user=u password='" + canary, "not one that PostgreSQL understands"},
		"postgres, a name of two words":    {sql.Postgres, "host=db.example user=u password=a " + canary + " b=c", "not one that PostgreSQL understands"},
		"postgres, keywords of a service":  {sql.Postgres, "service=" + canary + " user=u", "service must not be set"},
		"postgres, socket":                 {sql.Postgres, "postgres://u@/shop?host=/var/run/" + canary, "Unix socket"},
		"postgres, a file for a CA":        {sql.Postgres, good + "?sslrootcert=/etc/" + canary, "put the CA into the key ca.crt"},
		"postgres, a file for a key":       {sql.Postgres, good + "?sslkey=/etc/" + canary, "sslkey must not be set"},
		"postgres, a file of passwords":    {sql.Postgres, good + "?passfile=/etc/" + canary, "passfile must not be set"},
		"postgres, a file of services":     {sql.Postgres, good + "?servicefile=/etc/" + canary + "&service=x", "service must not be set"},
		"postgres, options":                {sql.Postgres, good + "?options=-c%20role%3D" + canary, "options must not be set"},
		"postgres, any other parameter":    {sql.Postgres, good + "?" + canary + "=x", "has an option that is not known here"},
		"postgres, the form of mysql":      {sql.Postgres, my, "not one that PostgreSQL understands"},
		"mysql":                            {sql.MySQL, my, ""},
		"mysql, all that may be":           {sql.MySQL, my + "?tls=true&charset=utf8mb4&collation=utf8mb4_bin&parseTime=true", ""},
		"mysql, empty":                     {sql.MySQL, "", "must name a user and a database"},
		"mysql, the form of postgres":      {sql.MySQL, good, "tcp"},
		"mysql, no slash":                  {sql.MySQL, "u:" + canary + "@tcp(db.example)", "not one that the MySQL driver understands"},
		"mysql, socket":                    {sql.MySQL, "u:" + canary + "@unix(/run/" + canary + ")/shop", "over TCP"},
		"mysql, no database":               {sql.MySQL, "u:" + canary + "@tcp(db.example)/", "must name a user and a database"},
		"mysql, no user":                   {sql.MySQL, "tcp(db.example)/shop", "must name a user and a database"},
		"mysql, TLS without verification":  {sql.MySQL, my + "?tls=skip-verify", "tls must be true or false"},
		"mysql, TLS if it is there":        {sql.MySQL, my + "?tls=preferred", "tls must be true or false"},
		"mysql, TLS of another":            {sql.MySQL, my + "?tls=" + canary, "tls must be true or false"},
		"mysql, files":                     {sql.MySQL, my + "?allowAllFiles=true", "allowAllFiles"},
		"mysql, passwords in clear":        {sql.MySQL, my + "?tls=true&allowCleartextPasswords=1", "allowCleartextPasswords"},
		"mysql, plain text as a fallback":  {sql.MySQL, my + "?allowFallbackToPlaintext=true", "allowFallbackToPlaintext"},
		"mysql, old passwords":             {sql.MySQL, my + "?allowOldPasswords=true", "allowOldPasswords"},
		"mysql, many statements":           {sql.MySQL, my + "?multiStatements=true", "multiStatements"},
		"mysql, parameters in the text":    {sql.MySQL, my + "?interpolateParams=true", "interpolateParams"},
		"mysql, what makes it panic":       {sql.MySQL, my + "?strict=true", "strict"},
		"mysql, a character set":           {sql.MySQL, my + "?charset=gbk", "utf8mb4"},
		"mysql, a collation with more":     {sql.MySQL, my + "?collation=utf8mb4_bin;" + canary, "collation"},
		"mysql, a system variable":         {sql.MySQL, my + "?sql_mode=" + canary, "tls, charset, collation and parseTime only"},
		"no driver":                        {"", good, "driver"},
		"another driver":                   {"sqlite", good, `"sqlite"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := (&server{driver: test.driver, dsn: func(_, _, _ string) string { return test.dsn }}).options("")
			source, err := sql.New(o)
			switch {
			case err == nil && test.says != "":
				source.Close()
				t.Fatal("it was taken")
			case err == nil:
				source.Close()
			case test.says == "" || !strings.Contains(err.Error(), test.says):
				t.Errorf("%v; want %q", err, test.says)
			case strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary):
				t.Errorf("it shows the DSN: %v", err)
			}
		})
	}
}

func TestACredentialNeverPrints(t *testing.T) {
	c := users.NewCredential(canary)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "in", struct{ C users.Credential }{c})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "in", []any{c})
	encoded, err := json.Marshal(map[string]any{"c": c})
	if err != nil {
		t.Fatal(err)
	}
	o := sql.Options{DSN: c}
	if text := fmt.Sprintf("%v %+v %#v %s %q %x %d %v %+v", c, c, c, c, c, c, c, o, &o) + log.String() + string(encoded); strings.Contains(text, canary) {
		t.Error(text)
	}
}

func TestOptionsAreRefusedByName(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*sql.Options)
		says   string
	}{
		"no query":                    {func(o *sql.Options) { o.Authenticate.Query = " " }, "authenticate.query"},
		"no lookup":                   {func(o *sql.Options) { o.Lookup.Query = "" }, "lookup.query"},
		"id is not used":              {func(o *sql.Options) { o.Authenticate.Parameters = []string{"phone"} }, "authenticate.parameters"},
		"the password is sent":        {func(o *sql.Options) { o.Authenticate.Password = &sql.Password{Column: "password", Field: "phone"} }, "authenticate.password.field"},
		"a password without a column": {func(o *sql.Options) { o.Authenticate.Password = &sql.Password{Field: "password"} }, "authenticate.password"},
		"the subject for a password":  {func(o *sql.Options) { o.Authenticate.Password = &sql.Password{Column: "id", Field: "password"} }, "authenticate.password.column"},
		"the password is the id":      {func(o *sql.Options) { o.Authenticate.Password = &sql.Password{Column: "password", Field: "id"} }, "authenticate.password.field"},
		"disabled for a subject":      {func(o *sql.Options) { o.Subject = "disabled" }, "subject"},
		"a CA that is none":           {func(o *sql.Options) { o.CA = []byte(canary) }, "ca.crt:"},
		"a CA that is never looked at": {func(o *sql.Options) {
			o.CA = []byte(canary)
			o.DSN = users.NewCredential(o.DSN.Reveal() + "?sslmode=disable")
		}, "ca.crt:"},
		"no dialler":            {func(o *sql.Options) { o.Dial = nil }, "dial"},
		"a timeout in the past": {func(o *sql.Options) { o.QueryTimeout = -1 }, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			o := (&server{driver: sql.Postgres, dsn: func(_, _, _ string) string { return "postgres://u:p@db.example/shop" }}).options("")
			test.change(&o)
			if source, err := sql.New(o); err == nil {
				source.Close()
				t.Error("it was taken")
			} else if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), canary) {
				t.Errorf("%v; want %q", err, test.says)
			}
		})
	}
}
