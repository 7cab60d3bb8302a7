// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MaxSize is the largest file in bytes: a ConfigMap holds no more.
const MaxSize = 1 << 20

// minReader is the oldest reader that may use what Marshal writes.
const minReader = 1

// FieldError is one thing that is wrong with the settings. Several of them are
// joined with [errors.Join].
type FieldError struct {
	// Field is the path of the field, for example refresh.early or rules[0].paths[1].value.
	Field string
	// Value is what is there, as written; settings hold nothing secret.
	Value string
	// Remedy says what to write instead.
	Remedy string
}

// Error names the field, the value and the remedy.
func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("settings: %s is missing: %s", e.Field, e.Remedy)
	}
	return fmt.Sprintf("settings: %s is %q: %s", e.Field, e.Value, e.Remedy)
}

// Parse reads a settings file and checks it as [Settings.Validate] does. Unknown
// fields are ignored, because MinReader guards what a reader must not ignore. What
// is wrong is a [FieldError], or several joined.
func Parse(data []byte) (*Settings, error) {
	if len(data) > MaxSize {
		return nil, &FieldError{Field: "file", Value: fmt.Sprintf("%d bytes", len(data)), Remedy: "settings have at most 1048576 bytes: remove rules"}
	}
	if err := checkDuplicates(data); err != nil {
		return nil, err
	}
	if err := checkVersion(data); err != nil {
		return nil, err
	}
	if err := checkPresence(data); err != nil {
		return nil, err
	}
	s := &Settings{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, typeError(err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s, nil
}

// Marshal writes the settings, stamped with the version of this package. The same
// settings give the same bytes. It fails with what [Settings.Validate] finds: a
// writer must not publish what no reader takes.
func (s *Settings) Marshal() ([]byte, error) {
	stamped := *s
	stamped.Version, stamped.MinReader = Version, minReader
	if err := stamped.Validate(); err != nil {
		return nil, err
	}
	if stamped.Rules == nil {
		stamped.Rules = []Rule{}
	}
	data, err := json.MarshalIndent(&stamped, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("marshal settings: %w", err)
	}
	data = append(data, '\n')
	if len(data) > MaxSize {
		return nil, &FieldError{Field: "file", Value: fmt.Sprintf("%d bytes", len(data)), Remedy: "settings have at most 1048576 bytes: remove rules"}
	}
	return data, nil
}

// checkVersion comes before everything else, so that a file of a later release is
// refused for what it is and not for a detail of it.
func checkVersion(data []byte) error {
	var v struct {
		Version   int `json:"version"`
		MinReader int `json:"minReader"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return typeError(err)
	}
	switch {
	case v.Version < 1:
		return &FieldError{Field: "version", Value: fmt.Sprint(v.Version), Remedy: "have the manager write the file: versions begin at 1"}
	case v.MinReader < 1 || v.MinReader > v.Version:
		return &FieldError{Field: "minReader", Value: fmt.Sprint(v.MinReader), Remedy: "have the manager write the file: minReader is from 1 to version"}
	case v.MinReader > Version:
		return &FieldError{Field: "minReader", Value: fmt.Sprint(v.MinReader), Remedy: fmt.Sprintf("this release reads up to %d: restart the pod to get the sidecar of the release that wrote it", Version)}
	}
	return nil
}

// checkPresence finds fields whose zero value would be taken for a choice.
func checkPresence(data []byte) error {
	var p struct {
		Leeway  *json.RawMessage `json:"leeway"`
		Keys    *json.RawMessage `json:"keys"`
		Refresh *struct {
			Early *json.RawMessage `json:"early"`
		} `json:"refresh"`
		Rules *json.RawMessage `json:"rules"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return typeError(err)
	}
	var errs []error
	missing := func(field, remedy string) { errs = append(errs, &FieldError{Field: field, Remedy: remedy}) }
	if p.Leeway == nil {
		missing("leeway", "write a duration such as 30s")
	} else {
		errs = append(errs, checkDuration("leeway", *p.Leeway))
	}
	if p.Keys == nil {
		missing("keys", "write a key set document")
	}
	switch {
	case p.Refresh == nil:
		missing("refresh", "write onExpired, responseHeader and early")
	case p.Refresh.Early == nil:
		missing("refresh.early", "write a duration such as 30s; 0s turns it off")
	default:
		errs = append(errs, checkDuration("refresh.early", *p.Refresh.Early))
	}
	if p.Rules == nil {
		missing("rules", "write [] when there are none")
	}
	return errors.Join(errs...)
}

// checkDuration gives the error of a malformed duration its field, which the
// decoder does not know.
func checkDuration(field string, raw json.RawMessage) error {
	var d Duration
	if json.Unmarshal(raw, &d) != nil {
		return &FieldError{Field: field, Value: strings.Trim(string(raw), `"`), Remedy: "write a duration as a string, such as 30s or 5m"}
	}
	return nil
}

// typeError turns the decoder's errors into field errors.
func typeError(err error) error {
	if wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := wrongType.Field
		if field == "" {
			field = "file"
		}
		return &FieldError{Field: field, Value: "JSON " + wrongType.Value, Remedy: "write a value of the type " + wrongType.Type.String()}
	}
	return fmt.Errorf("settings: not a JSON document: %w", err)
}

// checkDuplicates refuses an object that names a member twice, in any case:
// encoding/json would take the last of them, another reader the first (RFC 8259 section 4).
func checkDuplicates(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := walk(dec, ""); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("settings: not a JSON document: something follows it")
	}
	return nil
}

func walk(dec *json.Decoder, path string) error {
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("settings: not a JSON document: %w", err)
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for i := 0; dec.More(); i++ {
		at := fmt.Sprintf("%s[%d]", path, i)
		if delim == '{' {
			name, err := dec.Token()
			if err != nil {
				return fmt.Errorf("settings: not a JSON document: %w", err)
			}
			member, _ := name.(string)
			at = strings.TrimPrefix(path+"."+member, ".")
			folded := strings.ToLower(strings.ToUpper(member))
			if seen[folded] {
				return &FieldError{Field: at, Value: member, Remedy: "the member is there twice: remove one"}
			}
			seen[folded] = true
		}
		if err := walk(dec, at); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("settings: not a JSON document: %w", err)
	}
	return nil
}
