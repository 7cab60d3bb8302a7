// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tokenward/tokenward/internal/users"
)

// maxQuoted bounds what is repeated of a database's own words, in runes.
const maxQuoted = 160

// explain turns an error of a driver into one that may be shown. What drivers and
// servers say holds users, hosts and the values of parameters, so none of it is kept
// but what a server says about the text of a query while it is prepared: no values
// are there yet.
//
// The name is the query's; empty while there is none.
func explain(err error, name string, preparing bool) error {
	var known *users.UnavailableError
	if err == nil || errors.As(err, &known) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("ask the user database: %w", context.Canceled)
	}
	fault, detail := explainConnection(err, name)
	if fault == "" {
		fault, detail = explainServer(err, name, preparing)
	}
	if fault == "" {
		fault, detail = users.FaultUnavailable, "the database does not answer as it should"
	}
	return &users.UnavailableError{Fault: fault, Detail: detail}
}

// mistake is an error in what the policy says.
func mistake(fault users.Fault, format string, args ...any) *users.UnavailableError {
	return &users.UnavailableError{Fault: fault, Detail: fmt.Sprintf(format, args...)}
}

func explainConnection(err error, name string) (users.Fault, string) {
	if errors.Is(err, mysql.ErrNoTLS) || strings.Contains(err.Error(), "server refused TLS connection") { // pgx has no value for it
		return users.FaultTLS, "dsn: the database offers no TLS: turn it on there, or turn it off in the dsn"
	}
	if e, ok := users.ConnectionFault(err); ok {
		if e.Fault == users.FaultTimeout {
			return e.Fault, tooSlow(name)
		}
		return e.Fault, "dsn: " + e.Detail
	}
	return "", ""
}

func explainServer(err error, name string, preparing bool) (users.Fault, string) {
	var postgres *pgconn.PgError
	var my *mysql.MySQLError
	words := ""
	switch {
	case errors.As(err, &postgres):
		if preparing {
			words = quote(postgres.Message)
		}
		return explainPostgres(postgres.Code, name, words)
	case errors.As(err, &my):
		if preparing {
			words = quote(my.Message)
		}
		if my.Number == 1142 || my.Number == 1143 || my.Number == 1370 {
			words = rightOfMySQL(my.Message)
		}
		return explainMySQL(my.Number, name, words)
	case errors.Is(err, mysql.ErrCleartextPassword), errors.Is(err, mysql.ErrOldPassword), errors.Is(err, mysql.ErrNativePassword), errors.Is(err, mysql.ErrUnknownPlugin):
		return users.FaultCredentials, "dsn: the database asks for a kind of authentication that is not supported, or not safe: give the user another one"
	}
	return "", ""
}

const (
	badCredentials = "dsn: the database refuses the user or the password" //nolint:gosec // a sentence
	noDatabase     = "dsn: the database does not exist on the server"
	tooMany        = "the database has no connection left for the issuer"
)

// tooSlow: where there is a query, the connection was good when it was last looked at.
func tooSlow(name string) string {
	if name == "" {
		return "dsn: the server does not answer in time"
	}
	return name + ".query: is not answered in time: it is slow, or the server is busy or away"
}

// lackingRight says which, where the server does.
func lackingRight(name, lacking string) string {
	if name == "" {
		return "dsn: the user may not connect to the database: grant CONNECT"
	}
	return fmt.Sprintf("%s.query: the user of the dsn lacks a right%s: grant SELECT on what it reads; it must do nothing but read", name, lacking)
}

func writes(name string) string {
	return name + ".query: writes, and must only read: make it a SELECT that locks nothing"
}

// explainPostgres reads a SQLSTATE, PostgreSQL documentation, appendix A.
func explainPostgres(code, name, words string) (users.Fault, string) {
	switch code {
	case "28P01", "28000":
		return users.FaultCredentials, badCredentials
	case "3D000":
		return users.FaultSchema, noDatabase
	case "53300":
		return users.FaultUnavailable, tooMany
	case "57014":
		return users.FaultTimeout, tooSlow(name)
	case "25006":
		return users.FaultSchema, writes(name)
	case "42501":
		return users.FaultSchema, lackingRight(name, words)
	case "42P01":
		return users.FaultSchema, fmt.Sprintf("%s.query: names a table that the database does not have%s", name, words)
	case "42703":
		return users.FaultSchema, fmt.Sprintf("%s.query: names a column that the table does not have%s", name, words)
	}
	switch code[:min(2, len(code))] {
	case "42", "26", "0A":
		return users.FaultSchema, fmt.Sprintf("%s.query: the database does not understand it%s", name, words)
	case "22":
		return users.FaultSchema, fmt.Sprintf("%s.query: a value does not fit the type that it is compared with or converted to", name)
	}
	return "", ""
}

// explainMySQL reads an error number, MySQL documentation, server error message reference.
func explainMySQL(number uint16, name, words string) (users.Fault, string) {
	switch number {
	case 1044:
		return users.FaultCredentials, "dsn: the user has no rights in the database, or there is no such database"
	case 1045, 1698, 1251, 1862, 4151:
		return users.FaultCredentials, badCredentials
	case 1049:
		return users.FaultSchema, noDatabase
	case 1040, 1203, 1226:
		return users.FaultUnavailable, tooMany
	case 1317, 1969, 3024:
		return users.FaultTimeout, tooSlow(name)
	case 1792:
		return users.FaultSchema, writes(name)
	case 1142, 1143, 1370:
		return users.FaultSchema, lackingRight(name, words)
	case 1146: // the words would name the database
		return users.FaultSchema, fmt.Sprintf("%s.query: names a table that the database does not have", name)
	case 1054:
		return users.FaultSchema, fmt.Sprintf("%s.query: names a column that the table does not have%s", name, words)
	case 1064, 1149, 1295, 1305, 1052, 1055, 1109:
		return users.FaultSchema, fmt.Sprintf("%s.query: the database does not understand it%s", name, words)
	}
	return "", ""
}

// rightOfMySQL is the right of "DELETE command denied to user …", whose other words hold
// the user and a host.
func rightOfMySQL(message string) string {
	for _, right := range []string{"SELECT", "INSERT", "UPDATE", "DELETE", "execute"} {
		if strings.HasPrefix(message, right) {
			return ", " + right
		}
	}
	return ""
}

// quote is what a server says, in one line and bounded.
func quote(words string) string {
	clean := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(words, "")))
	if len(clean) > maxQuoted {
		clean = append(clean[:maxQuoted], '…')
	}
	return " (" + string(clean) + ")"
}
