// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package http

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/attribute"
)

// FuzzAnswer: what is taken is JSON also to encoding/json, means the same there, is
// within its bounds and holds no hash; what is not is an outage.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"subject":"alice"}`, `{"subject":"alice","disabled":true,"attributes":{"a":[1,true,"x"],"b":1e9,"c":null}}`, `{"subject":"a","subject":"b"}`,
		`{"subject":"\ud83d\ude00"}`, `{"subject":"\ud800"}`, `{"subject":1}`, `{"subject":"a","attributes":{"password":"x","h":"$2b$04$x","l":["$argon2id$"]}}`,
		`{"Subject":"a"}`, `[]`, `{`, "{\"subject\":\"\xff\"}", `{"subject":"a","attributes":{"a":{"b":{}}}}`, ` {"subject" : "a"} `, `{"subject":"a"}x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		user, err := parseAnswer(body)
		var unavailable *users.UnavailableError
		if err != nil {
			if !errors.As(err, &unavailable) || unavailable.Fault != users.FaultAnswer || user.Subject != "" {
				t.Fatalf("%q: %v, %v", body, user, err)
			}
			return
		}
		var plain struct {
			Subject    string         `json:"subject"`
			Disabled   bool           `json:"disabled"`
			Attributes map[string]any `json:"attributes"`
		}
		if err := json.Unmarshal(body, &plain); err != nil || plain.Subject != user.Subject || plain.Disabled != user.Disabled {
			t.Fatalf("%q is %+v to encoding/json (%v) and %+v here", body, plain, err, user)
		}
		if user.Subject == "" || len(user.Subject) > maxSubject || len(user.Attributes) > attribute.Most {
			t.Fatalf("%q gave %+v", body, user)
		}
		for _, name := range slices.Collect(maps.Keys(user.Attributes)) {
			value := user.Attributes[name]
			if _, ok := plain.Attributes[name]; !ok || !attribute.Valid(value) || attribute.Secret(value) || name == passwordAttribute {
				t.Fatalf("%q gave %q: %v", body, name, value)
			}
		}
	})
}
