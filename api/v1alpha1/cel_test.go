// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	api "github.com/tokenward/tokenward/api/v1alpha1"
)

// celCase breaks one CEL rule, and has a twin beside it that does not.
type celCase struct {
	refused string // merged into the full object
	allowed string // the twin, as close to it as can be
	field   string // that the refusal names
	says    string // the message, or enough of it
}

const longName = "metadata.name must have at most 63 characters"

var signingKeyCases = map[string]celCase{
	"a name too long for labels": {
		"metadata: {name: " + strings.Repeat("a", 64) + "}", "metadata: {name: " + strings.Repeat("a", 63) + "}",
		"<nil>", longName,
	},
	"key bits for a curve": {
		"spec: {algorithm: ES256}", "spec: {algorithm: ES256, rsaKeyBits: null}",
		"spec.rsaKeyBits", "remove it, or choose an algorithm that starts with RS or PS",
	},
	"key bits for EdDSA": {
		"spec: {algorithm: EdDSA}", "spec: {algorithm: PS512}",
		"spec.rsaKeyBits", "remove it, or choose an algorithm that starts with RS or PS",
	},
	"key bits for the default algorithm": {
		"spec: {algorithm: null}", "spec: {algorithm: null, rsaKeyBits: null}",
		"spec.rsaKeyBits", "remove it, or choose an algorithm that starts with RS or PS",
	},
	"key bits for an imported key": {
		"spec: {rotation: null, importFrom: {secretRef: {name: a, key: b}}}",
		"spec: {rotation: null, rsaKeyBits: null, importFrom: {secretRef: {name: a, key: b}}}",
		"spec.rsaKeyBits", "remove it, the imported key has its own size",
	},
	"an interval for an imported key": {
		"spec: {rsaKeyBits: null, importFrom: {secretRef: {name: a, key: b}}}",
		"spec: {rsaKeyBits: null, rotation: {interval: null}, importFrom: {secretRef: {name: a, key: b}}}",
		"spec.rotation.interval", "remove rotation.interval, or remove importFrom",
	},
	"rotation every 59 minutes": {
		"spec: {rotation: {interval: 59m59s}}", "spec: {rotation: {interval: 60m}}",
		"spec.rotation.interval", "interval must be at least 1h: write for example 720h",
	},
	"publishing 179 seconds before": {
		"spec: {rotation: {publishBefore: 179s}}", "spec: {rotation: {publishBefore: 180s}}",
		"spec.rotation.publishBefore", "publishBefore must be at least 3m",
	},
	"publishing as long before as a key signs": {
		"spec: {rotation: {interval: 2h, publishBefore: 120m}}", "spec: {rotation: {interval: 2h, publishBefore: 119m}}",
		"spec.rotation.publishBefore", "publishBefore must be shorter than interval",
	},
	"publishing longer before than the default interval": {
		"spec: {rotation: {interval: null, publishBefore: 720h}}", "spec: {rotation: {interval: null, publishBefore: 719h}}",
		"spec.rotation.publishBefore", "publishBefore must be shorter than interval",
	},
}

var tokenPolicyCases = map[string]celCase{
	"a name too long for labels": {
		"metadata: {name: " + strings.Repeat("a", 64) + "}", "metadata: {name: " + strings.Repeat("a", 63) + "}",
		"<nil>", longName,
	},
	"a token that outlives its idle session": {
		"spec: {accessToken: {ttl: 12h1s}}", "spec: {accessToken: {ttl: 12h}}",
		"spec.accessToken.ttl", "shorten ttl or lengthen idleTimeout",
	},
	"a session idle for longer than it may live": {
		"spec: {refresh: {idleTimeout: 168h1s}}", "spec: {refresh: {idleTimeout: 168h}}",
		"spec.refresh.idleTimeout", "shorten idleTimeout or lengthen absoluteTimeout",
	},
	"more sessions than the shards hold": {
		"spec: {store: {configMap: {maxSessions: 16001}}}", "spec: {store: {configMap: {maxSessions: 16000}}}",
		"spec.store.configMap.maxSessions", "set shards to at least maxSessions divided by 1000",
	},
	"early refresh of every token": {
		"spec: {refresh: {early: 5m}}", "spec: {refresh: {early: 4m59s}}",
		"spec.refresh.early", "shorten early, 0s turns it off",
	},
	"early refresh turned off and the shortest token": {
		"spec: {accessToken: {ttl: 30s}}", "spec: {accessToken: {ttl: 30s}, refresh: {early: 0s}}",
		"spec.refresh.early", "shorten early, 0s turns it off",
	},
	"a grace as long as a token": {
		"spec: {accessToken: {ttl: 40s}, refresh: {reuseGrace: 40s}}", "spec: {accessToken: {ttl: 40s}, refresh: {reuseGrace: 39s}}",
		"spec.refresh.reuseGrace", "shorten reuseGrace or lengthen ttl",
	},
	"the password in the token": {
		"spec: {accessToken: {claims: [{claim: role, attribute: role}, {claim: secret, attribute: password}]}}",
		"spec: {accessToken: {claims: [{claim: role, attribute: role}, {claim: secret, attribute: passwords}]}}",
		"spec.accessToken.claims", "the attribute password never goes into a token",
	},
	"more than a minute of leeway": {
		"spec: {leeway: 61s}", "spec: {leeway: 60s}",
		"spec.leeway", "leeway must be at most 60s",
	},
	"a token of 29 seconds": {
		"spec: {accessToken: {ttl: 29s}, refresh: {early: 0s}}", "spec: {accessToken: {ttl: 30s}, refresh: {early: 0s}}",
		"spec.accessToken.ttl", "ttl must be from 30s to 24h: write for example 5m",
	},
	"a token of more than a day": {
		"spec: {accessToken: {ttl: 24h1s}, refresh: {idleTimeout: 48h}}", "spec: {accessToken: {ttl: 24h}, refresh: {idleTimeout: 48h}}",
		"spec.accessToken.ttl", "ttl must be from 30s to 24h: write for example 5m",
	},
	"more than a minute of grace": {
		"spec: {refresh: {reuseGrace: 61s}}", "spec: {refresh: {reuseGrace: 1m}}",
		"spec.refresh.reuseGrace", "reuseGrace must be at most 60s",
	},
	"a session of more than a year": {
		"spec: {refresh: {absoluteTimeout: 8761h}}", "spec: {refresh: {absoluteTimeout: 8760h}}",
		"spec.refresh.absoluteTimeout", "absoluteTimeout must be at most 8760h",
	},
	"claims for everybody": {
		"spec: {rules: [{paths: [{type: Exact, value: /}], access: Anonymous, requireClaims: [{claim: role, values: [admin]}]}]}",
		"spec: {rules: [{paths: [{type: Exact, value: /}], access: Anonymous}]}",
		"spec.rules[0].requireClaims", "set access to Authenticated, or remove requireClaims",
	},
	"claims for nobody": {
		"spec: {rules: [{paths: [{type: Exact, value: /}], access: Denied, requireClaims: [{claim: role, values: [admin]}]}]}",
		"spec: {rules: [{paths: [{type: Exact, value: /}], requireClaims: [{claim: role, values: [admin]}]}]}",
		"spec.rules[0].requireClaims", "set access to Authenticated, or remove requireClaims",
	},
	"one header twice": {
		"spec: {upstream: {claimHeaders: [{claim: sub, header: X-User-Id}, {claim: sid, header: X-USER-ID}]}}",
		"spec: {upstream: {claimHeaders: [{claim: sub, header: X-User-Id}, {claim: sid, header: X-User-Sid}]}}",
		"spec.upstream.claimHeaders", "two entries name the same header in different case: keep one",
	},
	"id among the fields": {
		"spec: {users: {secret: {fields: [id, password]}}}", "spec: {users: {secret: {fields: [ident, password]}}}",
		"spec.users.secret.fields", "remove id and disabled",
	},
	"disabled among the fields": {
		"spec: {users: {secret: {fields: [password, disabled]}}}", "spec: {users: {secret: {fields: [password]}}}",
		"spec.users.secret.fields", "remove id and disabled",
	},
}

// ofUnion are the cases of the other members of the unions: each has its variant below
// what breaks it.
var ofUnion = map[string]celCase{
	"a login by query that has no id": {
		"spec: {users: {sql: {authenticate: {parameters: [phone]}}}}", "spec: {users: {sql: {authenticate: {parameters: [phone, id]}}}}",
		"spec.users.sql.authenticate.parameters", "add id to parameters",
	},
	"a password that goes to the database": {
		"spec: {users: {sql: {authenticate: {parameters: [id, password]}}}}", "spec: {users: {sql: {authenticate: {parameters: [id, pin]}}}}",
		"spec.users.sql.authenticate.password.field", "remove the field from parameters",
	},
	"the column disabled as the subject": {
		"spec: {users: {sql: {subjectColumn: disabled}}}", "spec: {users: {sql: {subjectColumn: user_id}}}",
		"spec.users.sql.subjectColumn", "name the column that identifies the user",
	},
	"the column disabled as the password": {
		"spec: {users: {sql: {authenticate: {password: {column: disabled}}}}}", "spec: {users: {sql: {authenticate: {password: {column: hash}}}}}",
		"spec.users.sql.authenticate.password.column", "name the column with the hash",
	},
	"id among the fields of a service": {
		"spec: {users: {http: {fields: [id]}}}", "spec: {users: {http: {fields: [identity]}}}",
		"spec.users.http.fields", "id always is presented",
	},
	"a service without https": {
		"spec: {users: {http: {url: 'http://users.shop.svc/'}}}", "spec: {users: {http: {url: 'https://users.shop.svc:8443/?tenant=1'}}}",
		"spec.users.http.url", "url must be an https URL",
	},
	"a service with a password in its URL": {
		"spec: {users: {http: {url: 'https://shop:hunter2@users.shop.svc/'}}}", "spec: {users: {http: {url: 'https://users.shop.svc'}}}",
		"spec.users.http.url", "url must be an https URL",
	},
	"a service with a fragment": {
		"spec: {users: {http: {url: 'https://users.shop.svc/#users'}}}", "spec: {users: {http: {url: 'https://users.shop.svc/users'}}}",
		"spec.users.http.url", "url must be an https URL",
	},
	"two servers that are one": {
		"spec: {store: {redis: {mode: Single, masterName: null, addresses: ['a:6379', 'b:6379']}}}", "spec: {store: {redis: {mode: Cluster, database: 0, masterName: null, addresses: ['a:6379', '[fd00::1]:6379']}}}",
		"spec.store.redis.addresses", "mode Single has one address",
	},
	"Sentinels without a group": {
		"spec: {store: {redis: {masterName: null}}}", "spec: {store: {redis: {mode: Single, masterName: null}}}",
		"spec.store.redis.masterName", "set it with mode Sentinel",
	},
	"a group without Sentinels": {
		"spec: {store: {redis: {mode: Single}}}", "spec: {store: {redis: {mode: Sentinel}}}",
		"spec.store.redis.masterName", "set it with mode Sentinel",
	},
	"a database of a Cluster": {
		"spec: {store: {redis: {mode: Cluster, masterName: null}}}", "spec: {store: {redis: {mode: Cluster, masterName: null, database: 0}}}",
		"spec.store.redis.database", "a Redis Cluster only has database 0",
	},
	"an attempt each 99 milliseconds": {
		"spec: {login: {perAccount: {interval: 99ms}}}", "spec: {login: {perAccount: {interval: 100ms}}}",
		"spec.login.perAccount.interval", "interval must be from 100ms to 24h",
	},
	"an attempt in more than a day": {
		"spec: {login: {perAddress: {interval: 24h1s}}}", "spec: {login: {perAddress: {interval: 24h}}}",
		"spec.login.perAddress.interval", "interval must be from 100ms to 24h",
	},
}

// celTables has the cases of each resource. What a list says better is in lists.
func celTables() map[string]map[string]celCase {
	lists := map[string]celCase{}
	many := func(prefix, field, says, format string, bad, good []string) {
		for i, value := range bad {
			lists[prefix+" "+value] = celCase{fmt.Sprintf(format, value), fmt.Sprintf(format, good[i%len(good)]), field, says}
		}
	}
	many("the issuer", "spec.issuer", "issuer must be an https URL", "spec: {issuer: %q}",
		[]string{"http://shop.example.com", "shop.example.com", "https://", "https:///path", "https://shop.example.com?a=b", "https://shop.example.com#a", "urn:shop"},
		[]string{"https://shop.example.com", "https://shop.example.com:8443/tenants/1"})
	many("the path", "spec.rules[0].paths[0].value", "a path has one canonical form", "spec: {rules: [{paths: [{type: Prefix, value: %q}]}]}",
		[]string{"//", "/a//b", "/a/../b", "/..", "/./a", "/a/.", "/a%2Fb", "/%2E%2E/a", "/a%5Cb", "/a%00", "/a%3Bb", "/a%2525", "/%61dmin", "/a%7Eb", "/%5F", "/v%31"},
		[]string{"/", "/a/b", "/.well-known/a", "/a..b", "/a/...", "/caf%C3%A9", "/a%20b", "/a,b"})
	many("the claim", "spec.accessToken.claims[0].claim", "set by Tokenward or reserved", "spec: {accessToken: {claims: [{claim: %q, attribute: role}]}}",
		[]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "gen", "client_id", "typ", "cnf", "azp", "nonce", "at_hash", "act", "scope", "ISS", "Scope"},
		[]string{"role", "scopes", "https://example.com/role"})
	many("the request header", "spec.upstream.claimHeaders[0].header", "use a name such as X-User-Id", "spec: {upstream: {claimHeaders: [{claim: sub, header: %q}]}}",
		[]string{
			"Authorization", "Host", "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Content-Type",
			"Content-Encoding", "Expect", "Cookie", "Origin", "Range", "Accept", "Accept-Encoding", "Via", "Forwarded", "User-Agent", "Date", "HTTP2-Settings",
			"Proxy-Authorization", "X-Forwarded-For", "Sec-Fetch-Mode", "Access-Control-Request-Method",
		},
		[]string{"X-User-Id", "Remote-User", "X-Forward"})
	many("the response header", "spec.refresh.responseHeader", "use Authorization or a name such as X-New-Token", "spec: {refresh: {responseHeader: %q}}",
		[]string{
			"Connection", "Keep-Alive", "Proxy-Authenticate", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Content-Type", "Content-Encoding",
			"Content-Range", "Set-Cookie", "Location", "WWW-Authenticate", "Date", "Server", "Vary", "Cache-Control", "ETag", "Retry-After", "Host", "Age", "Expires",
			"Last-Modified", "Allow", "Alt-Svc", "Link", "Refresh", "Access-Control-Allow-Origin",
		},
		[]string{"Authorization", "X-New-Token"})
	maps.Copy(lists, tokenPolicyCases)
	maps.Copy(lists, ofUnion)
	return map[string]map[string]celCase{"signingkeys": signingKeyCases, "tokenpolicies": lists}
}

func TestCEL(t *testing.T) {
	for resource, cases := range celTables() {
		for name, c := range cases {
			t.Run(resource+"/"+name, func(t *testing.T) {
				mustRefuse(t, resource, base(t, resource, variant(c.field), c.refused), c.field, c.says)
				mustAccept(t, resource, base(t, resource, variant(c.field), c.allowed))
			})
		}
	}
}

// transition is a rule that compares with what was there before.
type transition struct {
	before  string // merged into the full object
	refused string // merged into what is stored
	allowed string
	field   string
	says    string // the whole message
}

var transitions = map[string]transition{
	"shards": {
		"{}", "spec: {store: {configMap: {shards: 17}}}", "spec: {store: {configMap: {maxSessions: 12000}}}",
		"spec.store.configMap.shards", "shards cannot be changed, sessions would be lost: create another TokenPolicy",
	},
	"kind-of-store": {
		"{}", variants["spec.store.redis"], "spec: {store: null}", // which is the default, a configMap
		"spec.store", "another kind of store would leave the sessions behind and log everybody out: create another TokenPolicy and move the workloads to it",
	},
	"redis-to-postgres": {
		variants["spec.store.redis"], "spec: {store: {redis: null, postgres: {secretRef: {name: shop-sessions}}}}", "spec: {store: {redis: {addresses: ['other:26379'], secretRef: {name: other}}}}",
		"spec.store", "another kind of store would leave the sessions behind and log everybody out: create another TokenPolicy and move the workloads to it",
	},
	"postgres-to-default": {
		variants["spec.store.postgres"], "spec: {store: null}", "spec: {store: {postgres: {secretRef: {name: other}, maxSessions: null}}}",
		"spec.store", "another kind of store would leave the sessions behind and log everybody out: create another TokenPolicy and move the workloads to it",
	},
	"redis-database": {
		variants["spec.store.redis"], "spec: {store: {redis: {database: 2}}}", "spec: {store: {redis: {maxConnections: 5}}}",
		"spec.store.redis.database", "database cannot be changed, sessions would stay behind: create another TokenPolicy",
	},
	"redis-key-prefix": {
		variants["spec.store.redis"], "spec: {store: {redis: {keyPrefix: 'shop:'}}}", "spec: {store: {redis: {keyPrefix: null}}}", // the default again
		"spec.store.redis.keyPrefix", "keyPrefix cannot be changed, sessions would stay behind: create another TokenPolicy",
	},
}

func TestWhatSessionsHangOnCannotBeChanged(t *testing.T) {
	policies := server.Resource(api.GroupVersion.WithResource("tokenpolicies")).Namespace("default")
	for name, tt := range transitions {
		t.Run(name, func(t *testing.T) {
			given := base(t, "tokenpolicies", tt.before, "metadata: {name: "+name+"}")
			stored, err := policies.Create(t.Context(), &unstructured.Unstructured{Object: given}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			change := func(text string) error {
				_, err := policies.Update(t.Context(), &unstructured.Unstructured{Object: merge(stored.Object, parse(t, text))}, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
				return err
			}
			if err := change(tt.refused); err == nil || !strings.Contains(err.Error(), tt.field+":") || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("refused: %v", err)
			}
			if err := change(tt.allowed); err != nil {
				t.Errorf("allowed: %v", err)
			}
		})
	}
}

// TestEveryCELRuleHasACase reads the rules from the CRDs, so that none is added without.
func TestEveryCELRuleHasACase(t *testing.T) {
	for resource, cases := range celTables() {
		for _, c := range constraints(t, resource) {
			if c.kind != "cel" {
				continue
			}
			covered := false
			for _, tested := range transitions {
				covered = covered || c.detail == tested.says
			}
			for _, tested := range cases {
				covered = covered || strings.Contains(c.detail, tested.says)
			}
			if !covered {
				t.Errorf("%s: no case in this file breaks the rule at %q: %q", resource, c.path, c.detail)
			}
			if !strings.ContainsAny(c.detail, ":") {
				t.Errorf("%s: the message at %q has no remedy after a colon: %q", resource, c.path, c.detail)
			}
		}
	}
}
