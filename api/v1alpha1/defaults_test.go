// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// numbers compares YAML's float64 with the server's int64.
var numbers = cmp.FilterValues(
	func(a, b any) bool { return isNumber(a) && isNumber(b) },
	cmp.Comparer(func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }),
)

func isNumber(v any) bool {
	switch v.(type) {
	case int64, float64:
		return true
	}
	return false
}

const leastPolicy = `
apiVersion: tokenward.io/v1alpha1
kind: TokenPolicy
metadata: {name: least, namespace: default}
spec:
  signingKeyRef: {name: shop}
  issuer: https://shop.example.com
  audiences: [shop-api]
  users: {secret: {name: shop-users}}
`

// completePolicy is what the server makes of leastPolicy.
const completePolicy = `
spec:
  enforcement: Enforce
  signingKeyRef: {name: shop}
  issuer: https://shop.example.com
  audiences: [shop-api]
  leeway: 30s
  accessToken: {ttl: 5m}
  users: {secret: {name: shop-users, fields: [password]}}
  login:
    perAccount: {burst: 10, interval: 1m}
    perAddress: {burst: 100, interval: 1s}
  refresh:
    onExpired: Refresh
    responseHeader: Authorization
    early: 30s
    reuseGrace: 10s
    onReuse: RevokeSession
    idleTimeout: 12h
    absoluteTimeout: 168h
  store: {configMap: {shards: 16, maxSessions: 10000}}
  upstream: {authorization: Forward}
  denial: {statusCode: 403}
  endpoints: {prefix: /auth}
  networkPolicy: None
`

func TestDefaults(t *testing.T) {
	const leastKey = `
apiVersion: tokenward.io/v1alpha1
kind: SigningKey
metadata: {name: least, namespace: default}
`
	tests := map[string]struct {
		resource, given, change string
		want                    []string // merged
	}{
		"a SigningKey without a spec":            {"signingkeys", leastKey, ``, []string{`spec: {algorithm: ES256}`}},
		"a SigningKey with an empty spec":        {"signingkeys", leastKey, `spec: {}`, []string{`spec: {algorithm: ES256}`}},
		"a SigningKey with an empty rotation":    {"signingkeys", leastKey, `spec: {rotation: {}}`, []string{`spec: {algorithm: ES256, rotation: {}}`}},
		"the least TokenPolicy":                  {"tokenpolicies", leastPolicy, ``, []string{completePolicy}},
		"a TokenPolicy with every section empty": {"tokenpolicies", leastPolicy, `spec: {accessToken: {}, login: {}, refresh: {}, upstream: {}, denial: {}, endpoints: {}}`, []string{completePolicy}},
		"a store without figures":                {"tokenpolicies", leastPolicy, `spec: {store: {configMap: {}}}`, []string{completePolicy}},
		"a field set inside a section":           {"tokenpolicies", leastPolicy, `spec: {refresh: {onExpired: Reject}}`, []string{completePolicy, `spec: {refresh: {onExpired: Reject}}`}},
		"a rule without access needs a token":    {"tokenpolicies", leastPolicy, `spec: {rules: [{paths: [{type: Exact, value: /}]}]}`, []string{completePolicy, `spec: {rules: [{paths: [{type: Exact, value: /}], access: Authenticated}]}`}},
		"the least Redis": {
			"tokenpolicies", leastPolicy, `spec: {store: {redis: {addresses: ["redis:6379"]}}}`,
			[]string{completePolicy, `spec: {store: {configMap: null, redis: {mode: Single, addresses: ["redis:6379"], database: 0, keyPrefix: "tokenward:", tls: Verify, maxConnections: 20}}}`},
		},
		"the least PostgreSQL": {
			"tokenpolicies", leastPolicy, `spec: {store: {postgres: {secretRef: {name: shop-sessions}}}}`,
			[]string{completePolicy, `spec: {store: {configMap: null, postgres: {secretRef: {name: shop-sessions}, maxConnections: 8}}}`},
		},
		"the least service of users": {
			"tokenpolicies", leastPolicy, `spec: {users: {secret: null, http: {url: "https://users.shop.svc/"}}}`,
			[]string{completePolicy, `spec: {users: {secret: null, http: {url: "https://users.shop.svc/", fields: [password]}}}`},
		},
		"the least database of users": {
			"tokenpolicies", leastPolicy,
			`spec: {users: {secret: null, sql: {driver: mysql, secretRef: {name: a}, authenticate: {query: q, parameters: [id]}, lookup: {query: q}}}}`,
			[]string{completePolicy, `spec: {users: {secret: null, sql: {driver: mysql, secretRef: {name: a}, authenticate: {query: q, parameters: [id]}, lookup: {query: q}, subjectColumn: id, maxConnections: 8}}}`},
		},
		"values that were given are left as given": {"tokenpolicies", leastPolicy, `spec: {leeway: 0s, refresh: {early: 0s}, store: {configMap: {shards: 1, maxSessions: 5}}}`, []string{completePolicy, `spec: {leeway: 0s, refresh: {early: 0s}, store: {configMap: {shards: 1, maxSessions: 5}}}`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			stored, err := create(t, tt.resource, merge(parse(t, tt.given), parse(t, tt.change)))
			if err != nil {
				t.Fatal(err)
			}
			want := object{}
			for _, part := range tt.want {
				want = merge(want, parse(t, part))
			}
			if diff := cmp.Diff(want["spec"], stored["spec"], numbers); diff != "" {
				t.Errorf("spec (-want +stored):\n%s", diff)
			}
		})
	}
}
