// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tokenward/tokenward/internal/users"
)

func TestTypesOfPostgreSQL(t *testing.T) {
	s := postgres(t)
	database := s.database(t)
	s.exec(t, database, `
		CREATE TYPE mood AS ENUM ('glad', 'sad');
		CREATE TABLE users (id BIGINT PRIMARY KEY, phone CHAR(8), i2 SMALLINT, f4 REAL, f8 DOUBLE PRECISION, n NUMERIC(40, 2), nan NUMERIC,
			inf DOUBLE PRECISION, b BOOLEAN, t TEXT, e mood, u UUID, d DATE, ts TIMESTAMPTZ, raw BYTEA, tags TEXT[], nums INT[], none TEXT[], holes TEXT[], raws BYTEA[],
			j JSONB, jl JSON, jo JSONB, nothing TEXT, old TEXT, olds TEXT[], disabled BOOLEAN);
		INSERT INTO users VALUES (9007199254740993, '1234', -3, 0.1, 0.1, 12345678901234567890123456789012345678.90, 'NaN',
			'Infinity', TRUE, 'é', 'glad', '6f1c2b8e-0000-4000-8000-000000000001', '2026-11-23', '2026-11-23 12:00:00+09', '\x00ff', '{a,"b,c"}', '{1,2}', '{}', '{x,NULL}', '{"\\x00"}',
			'"x"', '["a",1,true]', '{"a": 1}', NULL, '$2a$04$abc', '{"$argon2id$x"}', FALSE)`)
	o := s.options(database)
	o.Authenticate.Query = "SELECT * FROM users WHERE id = $1 AND phone = $2"
	o.Lookup.Query = "SELECT * FROM users WHERE id = $1"
	source := open(t, o)
	if err := source.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := users.User{Subject: "9007199254740993", Attributes: map[string]any{
		"id": json.Number("9007199254740993"), "phone": "1234    ", "i2": json.Number("-3"), "f4": json.Number("0.1"), "f8": json.Number("0.1"),
		"n": json.Number("12345678901234567890123456789012345678.90"), "b": true, "t": "é", "e": "glad", "u": "6f1c2b8e-0000-4000-8000-000000000001",
		"d": "2026-11-23", "ts": "2026-11-23T03:00:00Z", "tags": []any{"a", "b,c"}, "nums": []any{json.Number("1"), json.Number("2")},
		"none": []any{}, "holes": []any{"x"}, "j": "x", "jl": []any{"a", json.Number("1"), true},
	}}
	got, err := source.Authenticate(t.Context(), byPhone("9007199254740993", "1234"))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("login: %v\n%s", err, diff)
	}
	got, err = source.Lookup(t.Context(), "9007199254740993")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("lookup: %v\n%s", err, diff)
	}
	for _, id := range []string{"alice", "9007199254740993x", "9007199254740992", "99999999999999999999999", "1e3", "0", "-1", "9007199254740993 OR TRUE"} {
		user, err := source.Authenticate(t.Context(), byPhone(id, "1234"))
		isNoUser(t, user, err)
	}
	_, err = source.Lookup(t.Context(), "alice")
	isFault(t, err, users.FaultSchema, "lookup.query", `"id"`) // no verdict: that subject came from elsewhere
}

func TestTypesOfMariaDB(t *testing.T) {
	s := mariadb(t)
	database := s.database(t)
	s.exec(t, database,
		`CREATE TABLE users (id BIGINT UNSIGNED PRIMARY KEY, phone VARCHAR(32), i1 TINYINT, f4 FLOAT, f8 DOUBLE, n DECIMAL(40, 2), t TEXT CHARACTER SET utf8mb4, e ENUM('glad', 'sad'),
			d DATE, ts DATETIME, zero DATE, y YEAR, raw VARBINARY(4), b BLOB, bits BIT(3), j JSON, nothing TEXT, old VARCHAR(100), disabled BIT(1))`,
		"SET sql_mode = ''",
		`INSERT INTO users VALUES (18446744073709551615, '1234', -3, 0.1, 0.1, 12345678901234567890123456789012345678.90, 'é', 'glad',
			'2026-11-23', '2026-11-23 12:00:00', '0000-00-00', 2026, x'00ff', x'00ff', b'101', '["a"]', NULL, '$2a$04$abc', b'0')`,
		`INSERT INTO users (id, phone, disabled) VALUES (7, '5678', b'1')`,
	)
	o := s.options(database)
	o.Authenticate.Query = "SELECT * FROM users WHERE id = ? AND phone = ?"
	o.Lookup.Query = "SELECT * FROM users WHERE id = ?"
	source := open(t, o)
	if err := source.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := users.User{Subject: "18446744073709551615", Attributes: map[string]any{
		"id": json.Number("18446744073709551615"), "phone": "1234", "i1": json.Number("-3"), "f4": json.Number("0.1"), "f8": json.Number("0.1"),
		"n": json.Number("12345678901234567890123456789012345678.90"), "t": "é", "e": "glad", "d": "2026-11-23", "ts": "2026-11-23T12:00:00Z",
		"y": json.Number("2026"), "j": `["a"]`, // MariaDB's JSON is text
	}}
	got, err := source.Authenticate(t.Context(), byPhone("18446744073709551615", "1234"))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("login: %v\n%s", err, diff)
	}
	if got, err := source.Lookup(t.Context(), "7"); !errors.Is(err, users.ErrDisabled) {
		t.Errorf("disabled by a bit: %v, %v", got, err)
	}
}

// MySQL takes "7x" for 7 and "x" for 0 when it compares them with numbers.
func TestMySQLComparesNumbersAsText(t *testing.T) {
	s := mariadb(t)
	database := s.database(t)
	s.exec(t, database, "CREATE TABLE users (id BIGINT PRIMARY KEY, phone BIGINT, password VARCHAR(200))",
		"INSERT INTO users VALUES (7, 0, '"+hash(t, "x")+"'), (0, 821012345678, '"+hash(t, "x")+"')")
	o := s.options(database)
	o.Authenticate.Query = "SELECT id, phone FROM users WHERE id = ? AND phone = ?"
	o.Lookup.Query = "SELECT id FROM users WHERE id = ?"
	source := open(t, o)
	for _, fields := range []map[string]string{byPhone("7", "0"), byPhone("0", "821012345678")} {
		if _, err := source.Authenticate(t.Context(), fields); err != nil {
			t.Errorf("%v: %v", fields, err)
		}
	}
	for _, fields := range []map[string]string{
		byPhone("7", "anything"), byPhone("7x", "0"), byPhone("7", "0x"), byPhone("7", "00"), byPhone("7.0", "0"), byPhone(" 7", "0"), byPhone("7", "-0"),
		byPhone("alice", "821012345678"), byPhone("0", "821012345678 "), byPhone("0", "8.21012345678e11"),
	} {
		user, err := source.Authenticate(t.Context(), fields)
		isNoUser(t, user, err)
	}
	o.Authenticate.Query = "SELECT id FROM users WHERE id = ? AND phone = ?"
	source = open(t, o)
	isFault(t, source.Check(t.Context()), users.FaultAnswer, "authenticate.query", `column "phone"`, "without a password")
	_, err := source.Authenticate(t.Context(), byPhone("7", "anything"))
	isFault(t, err, users.FaultAnswer, `column "phone"`)
	o = s.withPassword(o)
	o.Authenticate.Query = "SELECT id, password FROM users WHERE id = ?"
	source = open(t, o)
	if _, err := source.Authenticate(t.Context(), byPassword("7", "x")); err != nil {
		t.Error(err)
	}
	user, err := source.Authenticate(t.Context(), byPassword("7x", "x"))
	isNoUser(t, user, err) // one account has one id, or guesses could not be counted
	if _, err := source.Lookup(t.Context(), "7x"); err == nil || errors.Is(err, users.ErrNoUser) {
		t.Errorf("a row with another subject: %v", err)
	}
}

func TestASubjectMustBeTextOrAWholeNumber(t *testing.T) {
	s := postgres(t)
	database := s.database(t)
	for name, expression := range map[string]string{
		"NULL": "NULL::text", "empty": "''", "a fraction": "1.5", "a boolean": "TRUE", "a list": "ARRAY['a']", "bytes": `'\x00'::bytea`, "too long": "repeat('x', 513)",
	} {
		t.Run(name, func(t *testing.T) {
			o := s.options(database)
			o.Subject = "sub"
			o.Authenticate.Query = "SELECT " + expression + " AS sub FROM generate_series(1, 1) WHERE $1::text <> '' AND $2::text <> ''"
			o.Lookup.Query = "SELECT " + expression + " AS sub FROM generate_series(1, 1) WHERE $1::text <> ''"
			source := open(t, o)
			_, err := source.Authenticate(t.Context(), byPhone("a", "b"))
			isFault(t, err, users.FaultAnswer, "authenticate.query", `"sub"`)
			_, err = source.Lookup(t.Context(), "a")
			isFault(t, err, users.FaultAnswer, "lookup.query", `"sub"`)
		})
	}
	for name, expression := range map[string]string{"text": "'no'", "a number that is neither": "2", "a fraction": "0.5"} {
		t.Run("disabled is "+name, func(t *testing.T) {
			o := s.options(database)
			o.Lookup.Query = "SELECT $1::text AS id, " + expression + " AS disabled"
			source := open(t, o)
			_, err := source.Lookup(t.Context(), "a")
			isFault(t, err, users.FaultAnswer, "lookup.query", `"disabled"`, "boolean")
		})
	}
}
