// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/testenv"
)

// server is the API server that all tests of this package ask.
var server dynamic.Interface

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	env, err := testenv.New(testenv.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	server = dynamic.NewForConfigOrDie(env.Config)
	return m.Run()
}

type object = map[string]any

// signingKey and tokenPolicy have every field set, so that each can be made wrong.
const signingKey = `
apiVersion: tokenward.io/v1alpha1
kind: SigningKey
metadata: {name: shop, namespace: default}
spec:
  algorithm: RS256
  rsaKeyBits: 3072
  rotation: {interval: 720h, publishBefore: 5m}
  revokedKeyIDs: [cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s]
`

// imported is a signingKey whose key is not generated.
const imported = `spec: {rsaKeyBits: null, rotation: {interval: null}, importFrom: {secretRef: {name: legacy-key, key: tls.key}}}`

const tokenPolicy = `
apiVersion: tokenward.io/v1alpha1
kind: TokenPolicy
metadata: {name: shop, namespace: default}
spec:
  enforcement: Enforce
  signingKeyRef: {name: shop}
  issuer: https://shop.example.com
  audiences: [shop-api]
  leeway: 30s
  accessToken: {ttl: 5m, claims: [{claim: role, attribute: role}]}
  users: {secret: {name: shop-users, fields: [phone, password]}}
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
  rules:
  - paths: [{type: Exact, value: /healthz}]
    methods: [GET]
    access: Authenticated
    requireClaims: [{claim: role, values: [admin]}]
  upstream:
    claimHeaders: [{claim: sub, header: X-User-Id}]
    authorization: Forward
  denial: {statusCode: 403}
  endpoints: {prefix: /auth}
  networkPolicy: Enforce
`

// variants are the other members of the unions, by the path below which they are.
var variants = map[string]string{
	"spec.users.sql": `
spec:
  users:
    secret: null
    sql:
      driver: postgres
      secretRef: {name: shop-users-db}
      authenticate:
        query: SELECT id, role, password FROM users WHERE id = $1
        parameters: [id]
        password: {column: password, field: password}
      lookup: {query: SELECT id, role FROM users WHERE id = $1}
      subjectColumn: id
      maxConnections: 8
`,
	"spec.users.http":     `spec: {users: {secret: null, http: {url: "https://users.shop.svc/tokenward", secretRef: {name: shop-users-service}, fields: [phone]}}}`,
	"spec.store.redis":    `spec: {store: {configMap: null, redis: {mode: Sentinel, addresses: ["redis.shop.svc:26379"], masterName: shop, database: 1, keyPrefix: "tokenward:", tls: Verify, secretRef: {name: shop-redis}, maxConnections: 20}}}`,
	"spec.store.postgres": `spec: {store: {configMap: null, postgres: {secretRef: {name: shop-sessions}, maxConnections: 8, maxSessions: 100000}}}`,
}

// variant is what has to be merged into the full object for it to have the path.
func variant(path string) string {
	for prefix, change := range variants {
		if path == prefix || strings.HasPrefix(path, prefix+".") {
			return change
		}
	}
	if strings.HasPrefix(path, "spec.importFrom") {
		return imported
	}
	return "{}"
}

// base is the full object of a resource with changes merged in.
func base(t *testing.T, resource string, changes ...string) object {
	t.Helper()
	full := parse(t, map[string]string{"signingkeys": signingKey, "tokenpolicies": tokenPolicy}[resource])
	for _, change := range changes {
		full = merge(full, parse(t, change))
	}
	return full
}

func parse(t *testing.T, text string) object {
	t.Helper()
	var parsed object
	if err := yaml.UnmarshalStrict([]byte(text), &parsed); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return parsed
}

// merge is a JSON merge patch (RFC 7396): null removes, objects merge, anything else replaces.
func merge(into, change object) object {
	result := maps.Clone(into)
	if result == nil {
		result = object{}
	}
	for name, value := range change {
		inner, isObject := value.(object)
		switch {
		case value == nil:
			delete(result, name)
		case isObject:
			old, _ := result[name].(object)
			result[name] = merge(old, inner)
		default:
			result[name] = value
		}
	}
	return result
}

// create asks the server whether it would take content, and returns what it would store.
func create(t *testing.T, resource string, content object) (object, error) {
	t.Helper()
	created, err := server.Resource(api.GroupVersion.WithResource(resource)).Namespace("default").
		Create(t.Context(), &unstructured.Unstructured{Object: content}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return nil, err
	}
	return created.Object, nil
}

func mustAccept(t *testing.T, resource string, content object) {
	t.Helper()
	if _, err := create(t, resource, content); err != nil {
		t.Errorf("refused, and is right: %v", err)
	}
}

// mustRefuse checks that content is refused at field with a message that has text.
func mustRefuse(t *testing.T, resource string, content object, field, text string) {
	t.Helper()
	_, err := create(t, resource, content)
	if err == nil {
		t.Errorf("accepted, want a refusal of %s with %q", field, text)
		return
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsInvalid(err) || status.Status().Details == nil {
		t.Errorf("got %v, want Invalid with details", err)
		return
	}
	for _, cause := range status.Status().Details.Causes {
		if cause.Field == field && strings.Contains(cause.Message, text) {
			return
		}
	}
	t.Errorf("no refusal of %s with %q in: %v", field, text, err)
}

func TestFullObjectsAreAccepted(t *testing.T) {
	mustAccept(t, "signingkeys", base(t, "signingkeys"))
	mustAccept(t, "signingkeys", base(t, "signingkeys", imported))
	mustAccept(t, "tokenpolicies", base(t, "tokenpolicies"))
	for _, change := range variants {
		mustAccept(t, "tokenpolicies", base(t, "tokenpolicies", change))
	}
}
