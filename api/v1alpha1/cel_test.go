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
		"spec.store.configMap.maxSessions", "set store.configMap.shards to at least maxSessions divided by 1000",
	},
	"early refresh of every token": {
		"spec: {refresh: {early: 5m}}", "spec: {refresh: {early: 4m59s}}",
		"spec.refresh.early", "shorten early, 0s turns it off",
	},
	"early refresh turned off and the shortest token": {
		"spec: {accessToken: {ttl: 30s}}", "spec: {accessToken: {ttl: 30s}, refresh: {early: 0s}}",
		"spec.refresh.early", "shorten early, 0s turns it off",
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
	return map[string]map[string]celCase{"signingkeys": signingKeyCases, "tokenpolicies": lists}
}

func TestCEL(t *testing.T) {
	for resource, cases := range celTables() {
		for name, c := range cases {
			t.Run(resource+"/"+name, func(t *testing.T) {
				mustRefuse(t, resource, base(t, resource, c.refused), c.field, c.says)
				mustAccept(t, resource, base(t, resource, c.allowed))
			})
		}
	}
}

// shardsMessage belongs to the one rule that compares with what was there before.
const shardsMessage = "shards cannot be changed, sessions would be lost: create another TokenPolicy"

func TestShardsCannotBeChanged(t *testing.T) {
	policies := server.Resource(api.GroupVersion.WithResource("tokenpolicies")).Namespace("default")
	stored, err := policies.Create(t.Context(), &unstructured.Unstructured{Object: base(t, "tokenpolicies", "metadata: {name: shards}")}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	change := func(text string) error {
		_, err := policies.Update(t.Context(), &unstructured.Unstructured{Object: merge(stored.Object, parse(t, text))}, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	if err := change("spec: {store: {configMap: {shards: 17}}}"); err == nil ||
		!strings.Contains(err.Error(), "spec.store.configMap.shards") || !strings.Contains(err.Error(), shardsMessage) {
		t.Errorf("another number of shards: %v", err)
	}
	if err := change("spec: {store: {configMap: {maxSessions: 12000}}}"); err != nil {
		t.Errorf("the same number of shards: %v", err)
	}
}

// TestEveryCELRuleHasACase reads the rules from the CRDs, so that none is added without.
func TestEveryCELRuleHasACase(t *testing.T) {
	for resource, cases := range celTables() {
		for _, c := range constraints(t, resource) {
			if c.kind != "cel" || c.detail == shardsMessage {
				continue
			}
			covered := false
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
