// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tokenward/tokenward/internal/token"
)

// convert makes what an attribute can be of a column's value: string, bool,
// [json.Number] or a list of these. It is false for NULL, binary data, objects and
// what is no number among numbers (NaN, infinity).
//
// Kinds are those that the two drivers report, so that one function can do for both.
func convert(kind string, raw any) (any, bool) {
	switch v := raw.(type) {
	case nil:
		return nil, false
	case bool:
		return v, true
	case int64:
		return json.Number(strconv.FormatInt(v, 10)), true
	case uint64:
		return json.Number(strconv.FormatUint(v, 10)), true
	case float32:
		return float(float64(v), 32)
	case float64:
		if kind == "FLOAT" || kind == "FLOAT4" {
			return float(v, 32)
		}
		return float(v, 64)
	case time.Time:
		return moment(kind, v)
	case []byte:
		return text(kind, string(v))
	case string:
		return text(kind, v)
	}
	return nil, false
}

func float(v float64, bits int) (any, bool) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, false
	}
	return json.Number(strconv.FormatFloat(v, 'f', -1, bits)), true
}

// moment is in RFC 3339; MySQL's "0000-00-00" is none.
func moment(kind string, v time.Time) (any, bool) {
	switch {
	case v.IsZero():
		return nil, false
	case kind == "DATE":
		return v.Format(time.DateOnly), true
	}
	return v.UTC().Format(time.RFC3339Nano), true
}

func text(kind, v string) (any, bool) {
	if !utf8.ValidString(v) {
		return nil, false
	}
	switch {
	case strings.HasPrefix(kind, "_"):
		return array(kind, v)
	case kind == "JSON", kind == "JSONB":
		return document(v)
	case isNumeric(kind):
		return number(v)
	case isBinary(kind):
		return nil, false
	}
	return v, true
}

// isNumeric: kinds that come as text because Go has no type that holds them.
func isNumeric(kind string) bool {
	switch strings.TrimPrefix(kind, "UNSIGNED ") {
	case "NUMERIC", "DECIMAL", "BIGINT", "INT", "MEDIUMINT", "SMALLINT", "TINYINT", "YEAR", "FLOAT", "DOUBLE":
		return true
	}
	return false
}

func isBinary(kind string) bool {
	switch kind {
	case "BYTEA", "BINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB", "BIT", "GEOMETRY":
		return true
	}
	return false
}

// number is as the database writes it, if JSON can have it.
func number(v string) (any, bool) {
	if v == "" || v[0] != '-' && (v[0] < '0' || v[0] > '9') || !json.Valid([]byte(v)) {
		return nil, false
	}
	return json.Number(v), true
}

// document is a JSON value that is a scalar or a list of scalars, read by the rules
// that hold for claims.
func document(v string) (any, bool) {
	wrapped, err := token.DecodeExtra([]byte(`{"v":` + v + `}`))
	if err != nil || len(wrapped) != 1 || wrapped["v"] == nil {
		return nil, false
	}
	return wrapped["v"], true
}

// array reads PostgreSQL's text form of one. NULL elements are left out.
func array(kind, v string) (any, bool) {
	types := pgtype.NewMap()
	t, ok := types.TypeForName(strings.ToLower(kind))
	if !ok {
		return nil, false
	}
	decoded, err := t.Codec.DecodeValue(types, t.OID, pgtype.TextFormatCode, []byte(v))
	if err != nil {
		return nil, false
	}
	elements, ok := decoded.([]any)
	if !ok {
		return nil, false
	}
	list := []any{}
	for _, element := range elements {
		switch e := element.(type) {
		case nil:
			continue
		case int16:
			element = int64(e)
		case int32:
			element = int64(e)
		case string, bool, int64, float32, float64, time.Time:
		default:
			return nil, false
		}
		item, ok := convert(strings.TrimPrefix(kind, "_"), element)
		if !ok {
			return nil, false
		}
		list = append(list, item)
	}
	return list, true
}
