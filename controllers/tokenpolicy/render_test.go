// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// keySet is a fixed public key set; its private half was thrown away.
const keySet = `{"owner":"9b2c1c1e-5a1d-4f0e-8f5e-0d9a3f1b2c3d","version":7,"keys":[` +
	`{"kty":"OKP","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","use":"sig","alg":"EdDSA","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

func parsedKeySet(tb testing.TB) *token.KeySet {
	tb.Helper()
	keys, err := token.ParseKeySet([]byte(keySet))
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

// fullPolicy has every field set to something that is not its default.
func fullPolicy() *api.TokenPolicy {
	d := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	return &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "0b1f3c52-2f3e-4c57-9a54-61d4f7b0a001", Generation: 3},
		Spec: api.TokenPolicySpec{
			Enforcement:   api.Audit,
			SigningKeyRef: api.SigningKeyReference{Name: "shop"},
			Issuer:        "https://shop.example.com",
			Audiences:     []string{"shop-api", "shop-web"},
			Leeway:        d(45 * time.Second),
			AccessToken:   api.AccessToken{TTL: d(10 * time.Minute), Claims: []api.ClaimMapping{{Claim: "role", Attribute: "role"}}},
			Users:         api.Users{Secret: &api.SecretUsers{Name: "shop-users", Fields: []string{"password"}}},
			Refresh: api.Refresh{
				OnExpired: api.OnExpiredReject, ResponseHeader: "X-New-Token", Early: d(time.Minute),
				ReuseGrace: d(5 * time.Second), OnReuse: api.OnReuseDeny, IdleTimeout: d(time.Hour), AbsoluteTimeout: d(24 * time.Hour),
			},
			Rules: []api.Rule{
				{Paths: []api.Path{exact("/healthz"), prefix("/public")}, Methods: []string{"GET", "HEAD"}, Access: api.AccessAnonymous},
				{Paths: []api.Path{prefix("/admin")}, Access: api.AccessAuthenticated, RequireClaims: []api.RequiredClaim{{Claim: "role", Values: []string{"admin", "root"}}}},
				{Paths: []api.Path{prefix("/internal")}, Access: api.AccessDenied},
			},
			Upstream: api.Upstream{
				ClaimHeaders:  []api.ClaimHeader{{Claim: "sub", Header: "X-User-Id"}, {Claim: "role", Header: "X-Role"}},
				Authorization: api.AuthorizationRemove,
			},
			Denial:    api.Denial{StatusCode: 401},
			Endpoints: api.Endpoints{Prefix: "/login"},
		},
	}
}

// barePolicy has what the schema requires, and none of its defaults.
func barePolicy() *api.TokenPolicy {
	full := fullPolicy()
	return &api.TokenPolicy{ObjectMeta: full.ObjectMeta, Spec: api.TokenPolicySpec{
		SigningKeyRef: full.Spec.SigningKeyRef, Issuer: full.Spec.Issuer, Audiences: full.Spec.Audiences, Users: full.Spec.Users,
	}}
}

func TestRender(t *testing.T) {
	for name, policy := range map[string]*api.TokenPolicy{"full": fullPolicy(), "bare": barePolicy()} {
		t.Run(name, func(t *testing.T) {
			rendered, err := render(policy, parsedKeySet(t), installation{issuerURL: issuerURL, authorities: goldenAuthority(t)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := rendered.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := settings.Parse(got); err != nil {
				t.Errorf("a sidecar refuses it: %v", err)
			}
			file := filepath.Join("testdata", name+".settings.json")
			if *update {
				if err := os.WriteFile(file, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got), `go test -run TestRender -update` writes it:\n%s", file, diff)
			}
		})
	}
}

func goldenAuthority(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "authority.pem"))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func TestRenewChangesKeysAndInstallationAlone(t *testing.T) {
	before, err := render(fullPolicy(), parsedKeySet(t), installation{issuerURL: issuerURL, authorities: "before"})
	if err != nil {
		t.Fatal(err)
	}
	next, err := token.NewKeySet(parsedKeySet(t).Owner(), 8, nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := renew(*before, next, installation{issuerURL: "https://other.example.com", authorities: "after"})
	if err != nil {
		t.Fatal(err)
	}
	want, err := render(fullPolicy(), next, installation{issuerURL: "https://other.example.com", authorities: "after"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, after); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatNoSidecarCouldUseIsTheUsersToMend(t *testing.T) {
	policy := fullPolicy()
	policy.Spec.Rules[0].Paths[0].Value = "/%FF"
	s := &scope{policy: policy, keys: parsedKeySet(t), where: installation{issuerURL: issuerURL, authorities: goldenAuthority(t)}}
	if err := (&reconciler{}).renderSpec(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if s.refused == nil || s.refused.reason != api.ReasonSpecInvalid || !strings.Contains(s.refused.message, "rules[0].paths[0].value") || s.content != nil {
		t.Errorf("refused %+v, content %q", s.refused, s.content)
	}

	s = &scope{policy: fullPolicy(), keys: parsedKeySet(t), where: installation{issuerURL: "http://not-https", authorities: goldenAuthority(t)}}
	if err := (&reconciler{}).renderSpec(t.Context(), s); err == nil || s.refused != nil {
		t.Errorf("a wrong installation is the user's mistake: %+v (%v)", s.refused, err)
	}
}
