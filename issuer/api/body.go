// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/issuer/refusal"
)

const (
	contentJSON = "application/json"
	contentForm = "application/x-www-form-urlencoded"

	// maxFields is more than any source asks for.
	maxFields = 32
)

// readFields reads a login: a JSON object of strings, or a form, each field once.
func readFields(w http.ResponseWriter, r *http.Request) (map[string]string, error) {
	kind, err := contentType(r, contentJSON, contentForm)
	if err != nil {
		return nil, err
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	if kind == contentForm {
		return parseForm(body)
	}
	return parseFields(body)
}

// readToken reads the body of a refresh or a logout. Members that a newer sidecar
// may have added are ignored.
func readToken(w http.ResponseWriter, r *http.Request) (string, error) {
	if _, err := contentType(r, contentJSON); err != nil {
		return "", err
	}
	body, err := readBody(w, r)
	if err != nil {
		return "", err
	}
	// A map and not a struct: encoding/json folds the case of a struct's names.
	var members map[string]json.RawMessage
	var raw string
	if json.Unmarshal(body, &members) != nil || json.Unmarshal(members["access_token"], &raw) != nil || raw == "" {
		return "", refusal.Invalid(http.StatusBadRequest, `the body must be a JSON object with the token as a string in "access_token"`)
	}
	return raw, nil
}

func contentType(r *http.Request, accepted ...string) (string, error) {
	if r.Header.Get("Content-Encoding") != "" {
		return "", refusal.Invalid(http.StatusUnsupportedMediaType, "Content-Encoding must not be set: send the body as it is")
	}
	kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil {
		if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
			return "", refusal.Invalid(http.StatusUnsupportedMediaType, "the charset of Content-Type must be utf-8")
		}
		if slices.Contains(accepted, kind) {
			return kind, nil
		}
	}
	return "", refusal.Invalid(http.StatusUnsupportedMediaType, "Content-Type must be %s", strings.Join(accepted, " or "))
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, protocol.MaxLoginBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refusal.Invalid(http.StatusRequestEntityTooLarge, "the body has more than %d bytes: send only what is asked for", protocol.MaxLoginBody)
	case err != nil:
		refused := refusal.Invalid(http.StatusBadRequest, "the body could not be read to its end")
		refused.Err = err
		return nil, refused
	case !utf8.Valid(body):
		return nil, refusal.Invalid(http.StatusBadRequest, "the body must be UTF-8")
	}
	return body, nil
}

func parseForm(body []byte) (map[string]string, error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refusal.Invalid(http.StatusBadRequest, "the body is not a well-formed form: write id=…&password=… with percent-encoding")
	}
	if len(values) > maxFields {
		return nil, tooManyFields()
	}
	fields := make(map[string]string, len(values))
	for name, list := range values {
		if len(list) != 1 {
			return nil, twice(name)
		}
		fields[name] = list[0]
		if !utf8.ValidString(name) || !utf8.ValidString(list[0]) {
			return nil, refusal.Invalid(http.StatusBadRequest, "the form must be UTF-8")
		}
	}
	return fields, nil
}

// parseFields goes token by token, because encoding/json keeps the last of two
// members with one name and tells nobody.
func parseFields(body []byte) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, notAnObject()
	}
	fields := map[string]string{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, notAnObject()
		}
		if t, err = d.Token(); err != nil {
			return nil, notAnObject()
		}
		value, ok := t.(string)
		if !ok {
			return nil, refusal.Invalid(http.StatusBadRequest, "%s must be a string", refusal.Field(name))
		}
		if _, ok := fields[name]; ok {
			return nil, twice(name)
		}
		if len(fields) == maxFields {
			return nil, tooManyFields()
		}
		fields[name] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, notAnObject()
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, refusal.Invalid(http.StatusBadRequest, "something follows the JSON object: send one object and nothing else")
	}
	return fields, nil
}

func notAnObject() error {
	return refusal.Invalid(http.StatusBadRequest, `the body must be a JSON object of strings, for example {"id": "…", "password": "…"}`)
}

func twice(name string) error {
	return refusal.Invalid(http.StatusBadRequest, "%s is there twice: send it once", refusal.Field(name))
}

func tooManyFields() error {
	return refusal.Invalid(http.StatusBadRequest, "there are more than %d fields: send only those that the TokenPolicy asks for", maxFields)
}
