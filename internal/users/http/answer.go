// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package http

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/attribute"
)

const (
	// maxAnswer bounds the body of an answer, in bytes. Attributes end up in a token of
	// 8 KiB.
	maxAnswer = 64 << 10
	// maxSubject bounds the subject, in bytes.
	maxSubject = 512

	passwordAttribute = "password"
)

// mistake is an answer that is not what was agreed.
func mistake(format string, args ...any) error {
	return &users.UnavailableError{Fault: users.FaultAnswer, Detail: "the answer of the user service " + fmt.Sprintf(format, args...)}
}

// parseAnswer reads the body of a 200. What is wrong is a [*users.UnavailableError]
// that names members and quotes no value.
func parseAnswer(body []byte) (users.User, error) {
	members, err := token.DecodeExtra(body)
	if err != nil {
		return users.User{}, mistake("is not one JSON object with each name once, at most 16 levels and 1024 values")
	}
	var user users.User
	for name, value := range members {
		ok := false
		switch name {
		case "subject":
			user.Subject, ok = value.(string)
		case "disabled":
			user.Disabled, ok = value.(bool)
		case "attributes":
			if user.Attributes, err = parseAttributes(value); err != nil {
				return users.User{}, err
			}
			ok = true
		default:
			return users.User{}, mistake("has the member %q: there may be subject, disabled and attributes, which holds all others", short(name))
		}
		if !ok {
			return users.User{}, mistake("has a %s of the wrong JSON type: subject is a string, disabled true or false", name)
		}
	}
	if user.Subject == "" || len(user.Subject) > maxSubject || strings.ContainsRune(user.Subject, 0) || !utf8.ValidString(user.Subject) {
		return users.User{}, mistake("must have a subject, a string of 1 to %d bytes", maxSubject)
	}
	return user, nil
}

// parseAttributes leaves out null, passwords and hashes.
func parseAttributes(value any) (map[string]any, error) {
	if value == nil {
		return nil, nil //nolint:nilnil // no attributes and no error
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, mistake("has attributes that are not a JSON object")
	}
	if len(object) > attribute.Most {
		return nil, mistake("has %d attributes, more than %d", len(object), attribute.Most)
	}
	for name, value := range object {
		switch {
		case value == nil, name == passwordAttribute, attribute.Secret(value):
			delete(object, name)
		case !attribute.Valid(value):
			return nil, mistake("has an attribute %q that is not a string, a number, true, false or a list of at most %d of these", short(name), attribute.MostItems)
		}
	}
	return object, nil
}

func short(name string) string {
	const most = 64
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}
