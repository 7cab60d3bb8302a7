// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/attribute"
)

// maxSubject bounds the subject, in bytes.
const maxSubject = 512

// record is a row, understood.
type record struct {
	subject  string
	disabled bool
	// hash as it stands in the password's column; empty for NULL.
	hash       string
	attributes map[string]any
	// numbers are the columns that the database compares as numbers, by name.
	numbers map[string]string
}

// layout says which columns mean what.
type layout struct {
	subject string
	// password is empty where there is none.
	password string
	// hidden is a column that is no attribute, if it is there.
	hidden string
	// compared are columns that must be there, so that they can be compared again.
	compared []string
}

// check says which column is missing or there twice. Rows need not be there.
func (l layout) check(name string, columns []column) error {
	seen := map[string]bool{}
	for _, c := range columns {
		if seen[c.name] {
			return mistake(users.FaultAnswer, "%s.query: returns column %q twice: name the columns, or rename one with AS", name, short(c.name))
		}
		seen[c.name] = true
	}
	if len(columns) > attribute.Most {
		return mistake(users.FaultAnswer, "%s.query: returns %d columns, more than %d", name, len(columns), attribute.Most)
	}
	if !seen[l.subject] {
		return mistake(users.FaultAnswer, "%s.query: does not return column %q, which is the subject: select it, or name another as subject", name, l.subject)
	}
	if l.password != "" && !seen[l.password] {
		return mistake(users.FaultAnswer, "%s.query: does not return column %q, which authenticate.password.column names: select it", name, l.password)
	}
	for _, c := range l.compared {
		if !seen[c] {
			return mistake(users.FaultAnswer, "%s.query: does not return column %q: without a password every parameter must be a column too, "+
				"because MySQL takes any text for the number 0: select it, with AS if its name is another", name, c)
		}
	}
	return nil
}

// understand makes a record of a row. The password is no attribute, and neither is
// any value that is a hash, that is NULL or that a claim cannot hold.
func (l layout) understand(name string, found one) (record, error) {
	r := record{attributes: map[string]any{}, numbers: map[string]string{}}
	for i, c := range found.columns {
		raw := found.values[i]
		value, ok := convert(c.kind, raw)
		if number, isNumber := value.(json.Number); isNumber {
			r.numbers[c.name] = number.String()
		}
		switch {
		case c.name == disabledColumn:
			disabled, err := truth(name, c.kind, raw)
			if err != nil {
				return record{}, err
			}
			r.disabled = disabled
		case l.password != "" && c.name == l.password:
			text, _ := value.(string)
			r.hash = strings.TrimRight(text, " ") // CHAR(n) is filled up with spaces
		case l.hidden != "" && c.name == l.hidden:
		case ok && attribute.Valid(value) && !attribute.Secret(value):
			r.attributes[c.name] = value
		}
		if c.name == l.subject {
			subject, err := subjectOf(name, c.name, value)
			if err != nil {
				return record{}, err
			}
			r.subject = subject
		}
	}
	return r, nil
}

func subjectOf(name, column string, value any) (string, error) {
	subject := ""
	switch v := value.(type) {
	case string:
		subject = v
	case json.Number:
		subject = v.String()
		if strings.ContainsAny(subject, ".eE") {
			subject = ""
		}
	}
	if subject == "" || len(subject) > maxSubject || !utf8.ValidString(subject) {
		return "", mistake(users.FaultAnswer, "%s.query: column %q is the subject, and must be text of at most %d bytes or a whole number, never NULL or empty",
			name, column, maxSubject)
	}
	return subject, nil
}

// truth reads the column "disabled": a boolean, or 0 and 1 where the database has no
// boolean. NULL is false. A value that cannot be read lets nobody in.
func truth(name, kind string, raw any) (bool, error) {
	switch v := raw.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	case int64:
		if v == 0 || v == 1 {
			return v == 1, nil
		}
	case []byte:
		if kind == "BIT" && len(v) == 1 && v[0] <= 1 {
			return v[0] == 1, nil
		}
	}
	return false, mistake(users.FaultAnswer, "%s.query: column %q must be a boolean, or a number that is 0 or 1", name, disabledColumn)
}

func short(name string) string {
	const most = 64
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}
