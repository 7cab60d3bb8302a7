// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	postgresForm = "write postgres://user:password@host:5432/database?sslmode=verify-full" //nolint:gosec // a form to fill in
	// escapeThem is about what people forget in passwords.
	escapeThem = ", or user or password holds one of / # ? @ : % as it stands: percent-encode them, such as %40 for @"

	dsnSpace = " \t\n\r\v\f"
)

// postgresDSN are the settings of a DSN of PostgreSQL, in either of its forms. They are
// read here because the driver takes what is missing from the environment and the home
// directory of the issuer, and because its errors quote.
type postgresDSN map[string]string

// postgresKeys are what a DSN may hold.
func postgresKeys() []string {
	return []string{
		"host", "port", "user", "password", "dbname", "sslmode",
		"application_name", "channel_binding", "search_path", "target_session_attrs",
	}
}

// postgresRefused are options that PostgreSQL's clients know (documentation, section
// "Parameter Key Words"). They may be named: they are no pieces of a password.
func postgresRefused() []string {
	return []string{
		"client_encoding", "connect_timeout", "fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "hostaddr",
		"keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "krbspn", "load_balance_hosts",
		"max_protocol_version", "min_protocol_version", "options", "passfile", "replication", "require_auth", "requirepeer", "requiressl",
		"service", "servicefile", "ssl", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression",
		"sslcrl", "sslcrldir", "sslkey", "sslkeylogfile", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
		"statement_timeout", "tcp_user_timeout", "timezone",
	}
}

// parsePostgresDSN quotes nothing of the text but names of options that it knows.
func parsePostgresDSN(text string) (postgresDSN, error) {
	parse := parseKeywords
	rest, isURL := strings.CutPrefix(text, "postgres://")
	if !isURL {
		rest, isURL = strings.CutPrefix(text, "postgresql://")
	}
	if isURL {
		parse = parsePostgresURL
	}
	if strings.ContainsRune(text, 0) {
		return nil, errors.New("dsn: is not one that PostgreSQL understands: it holds a NUL")
	}
	settings, err := parse(rest)
	if err != nil {
		return nil, err
	}
	return settings, settings.check()
}

// parsePostgresURL reads what comes after the scheme, as PostgreSQL's own clients do:
// user and password end at the first @ that no / precedes.
func parsePostgresURL(rest string) (postgresDSN, error) {
	malformed := errors.New("dsn: is not one that PostgreSQL understands" + escapeThem + "; " + postgresForm)
	d, raw := postgresDSN{}, map[string]string{}
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		raw["user"], raw["password"], _ = strings.Cut(rest[:i], ":")
		rest = rest[i+1:]
	} else if i >= 0 && strings.ContainsRune(rest[i:], '@') {
		return nil, malformed
	}
	rest, query, _ := strings.Cut(rest, "?")
	servers, database, _ := strings.Cut(rest, "/")
	if strings.ContainsRune(servers, '@') {
		return nil, malformed
	}
	var hosts, ports []string
	for server := range strings.SplitSeq(servers, ",") {
		host, port, ok := cutServer(server)
		if !ok {
			return nil, malformed
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	raw["host"], raw["port"], raw["dbname"] = strings.Join(hosts, ","), strings.Join(ports, ","), database
	for name, value := range raw {
		decoded, err := url.PathUnescape(value)
		if err != nil {
			return nil, malformed
		}
		if value != "" {
			d[name] = decoded
		}
	}
	if query == "" {
		return d, nil
	}
	for pair := range strings.SplitSeq(query, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, noName := url.PathUnescape(rawName)
		value, noValue := url.PathUnescape(rawValue)
		if noName != nil || noValue != nil {
			return nil, malformed
		}
		d.set(name, value)
	}
	return d, nil
}

// cutServer takes host, host:port and [IPv6]:port.
func cutServer(server string) (host, port string, ok bool) {
	if inner, found := strings.CutPrefix(server, "["); found {
		host, port, ok = strings.Cut(inner, "]")
		if !ok || port != "" && port[0] != ':' {
			return "", "", false
		}
		return host, strings.TrimPrefix(port, ":"), true
	}
	host, port, _ = strings.Cut(server, ":")
	return host, port, true
}

// parseKeywords reads name=value pairs. A value with white space is in single quotes, and
// a backslash takes what follows as it stands.
func parseKeywords(text string) (postgresDSN, error) {
	malformed := errors.New("dsn: is not one that PostgreSQL understands: it is neither a URL nor a list of host=… user=… password='…' dbname=…; " + postgresForm)
	d := postgresDSN{}
	for text = strings.TrimLeft(text, dsnSpace); text != ""; text = strings.TrimLeft(text, dsnSpace) {
		name, rest, found := strings.Cut(text, "=")
		name = strings.TrimRight(name, dsnSpace)
		if !found || name == "" || strings.ContainsAny(name, dsnSpace) {
			return nil, malformed
		}
		rest = strings.TrimLeft(rest, dsnSpace)
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		var value strings.Builder
		i, closed := 0, false
		for ; i < len(rest) && !closed; i++ {
			switch c := rest[i]; {
			case c == '\\' && i+1 < len(rest):
				i++
				value.WriteByte(rest[i])
			case c == '\\':
			case quoted && c == '\'', !quoted && strings.IndexByte(dsnSpace, c) >= 0:
				closed = true
			default:
				value.WriteByte(c)
			}
		}
		if quoted && !closed {
			return nil, malformed
		}
		text = rest[i:]
		d.set(name, value.String())
	}
	return d, nil
}

func (d postgresDSN) set(name, value string) {
	if name == "database" {
		name = "dbname"
	}
	d[name] = value
}

func (d postgresDSN) check() error {
	unknown := ""
	for name, value := range d {
		switch {
		case strings.ContainsRune(value, 0):
			return errors.New("dsn: is not one that PostgreSQL understands: it holds a NUL")
		case slices.Contains(postgresKeys(), name):
		case slices.Contains(postgresRefused(), name):
			if unknown == "" || name < unknown {
				unknown = name
			}
		default:
			return errors.New("dsn: has an option that is not known here; there may be " + strings.Join(postgresKeys(), ", ") + escapeThem)
		}
	}
	switch {
	case unknown == "sslrootcert":
		return errors.New("dsn: sslrootcert must not be set, as it is a file of the issuer: remove it, and put the CA into the key ca.crt of the Secret")
	case unknown != "":
		return fmt.Errorf("dsn: %s must not be set: remove it; there may be %s", unknown, strings.Join(postgresKeys(), ", "))
	}
	hosts := strings.Split(d["host"], ",")
	for _, host := range hosts {
		if host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") {
			return errors.New("dsn: has no host, or a Unix socket, which would be the issuer's own: name the database's host; " + postgresForm)
		}
	}
	if d["user"] == "" {
		return errors.New("dsn: names no user; " + postgresForm)
	}
	ports := strings.Split(d["port"], ",")
	if len(ports) > 1 && len(ports) != len(hosts) {
		return errors.New("dsn: has not as many ports as hosts: write host:port,host:port")
	}
	for _, port := range ports {
		if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
			return errors.New("dsn: has a port that is not a number from 1 to 65535" + escapeThem)
		}
	}
	switch d["sslmode"] {
	case "", "verify-full", "disable":
	case "allow", "prefer", "require", "verify-ca":
		return fmt.Errorf("dsn: sslmode=%s does not verify the server: write sslmode=verify-full and put its CA into the key ca.crt of the Secret, or sslmode=disable to do without TLS", d["sslmode"])
	default:
		return errors.New("dsn: sslmode must be verify-full or disable, or not be there, which means verify-full")
	}
	for name, values := range map[string][]string{
		"channel_binding":      {"", "disable", "prefer", "require"},
		"target_session_attrs": {"", "any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
	} {
		if !slices.Contains(values, d[name]) {
			return fmt.Errorf("dsn: %s must be %s, or not be there", name, strings.Join(values[1:], ", "))
		}
	}
	return nil
}

// text sets every option that the driver would otherwise take from the environment or
// from files. Only a service cannot be unset.
func (d postgresDSN) text() string {
	all := map[string]string{
		"connect_timeout": "0", "sslnegotiation": "postgres", "sslcertmode": "disable", "sslsni": "1", "target_session_attrs": "any",
		"passfile": "", "servicefile": "", "sslcert": "", "sslkey": "", "sslrootcert": "", "sslpassword": "",
		"min_protocol_version": "", "max_protocol_version": "", "require_auth": "",
	}
	for _, name := range postgresKeys() {
		if all[name] == "" || d[name] != "" {
			all[name] = d[name]
		}
	}
	var b strings.Builder
	escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	for name, value := range all {
		b.WriteString(name + "='" + escape.Replace(value) + "' ")
	}
	return b.String()
}
