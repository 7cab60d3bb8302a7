// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package tokenpolicy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/token"
)

// The API server fills these in from the schema. They are repeated for objects
// that were stored before the schema had the default.
const (
	defaultLeeway      = 30 * time.Second
	defaultEarly       = 30 * time.Second
	defaultHeader      = "Authorization"
	defaultPrefix      = "/auth"
	defaultDenialCode  = 403
	defaultEnforcement = settings.Enforce
)

// installation is what the settings hold that no policy decides.
type installation struct {
	// issuerURL is where sidecars find the issuer: https, host and port.
	issuerURL string
	// authorities are the certificates, in PEM, that may have signed the issuer's.
	authorities string
}

// render makes the settings of a policy's sidecars. It is a pure function, and the
// only place where the API's words become the sidecar's.
func render(policy *api.TokenPolicy, keys *token.KeySet, where installation) (*settings.Settings, error) {
	document, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("marshal the key set: %w", err)
	}
	spec := policy.Spec
	return &settings.Settings{
		Policy: settings.Policy{
			Namespace: policy.Namespace, Name: policy.Name,
			UID: string(policy.UID), Generation: policy.Generation,
		},
		Enforcement: cmp.Or(settings.Enforcement(spec.Enforcement), defaultEnforcement),
		Issuer:      spec.Issuer,
		Audiences:   spec.Audiences,
		Leeway:      duration(spec.Leeway, defaultLeeway),
		Keys:        document,
		Refresh: settings.Refresh{
			OnExpired:      cmp.Or(settings.OnExpired(spec.Refresh.OnExpired), settings.OnExpiredRefresh),
			ResponseHeader: cmp.Or(spec.Refresh.ResponseHeader, defaultHeader),
			Early:          duration(spec.Refresh.Early, defaultEarly),
		},
		Rules:         renderRules(spec.Rules),
		Upstream:      renderUpstream(spec.Upstream),
		Denial:        settings.Denial{StatusCode: cmp.Or(int(spec.Denial.StatusCode), defaultDenialCode)},
		Endpoints:     settings.Endpoints{Prefix: cmp.Or(spec.Endpoints.Prefix, defaultPrefix)},
		IssuerService: settings.IssuerService{URL: where.issuerURL, CABundle: where.authorities},
	}, nil
}

// renew puts the newest key set and the installation's facts into settings that
// were published earlier. It keeps rotation and key revocation going while the
// policy's spec cannot be published.
func renew(published settings.Settings, keys *token.KeySet, where installation) (*settings.Settings, error) {
	document, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("marshal the key set: %w", err)
	}
	published.Keys = document
	published.IssuerService = settings.IssuerService{URL: where.issuerURL, CABundle: where.authorities}
	return &published, nil
}

func renderRules(rules []api.Rule) []settings.Rule {
	rendered := make([]settings.Rule, 0, len(rules))
	for _, rule := range rules {
		paths := make([]settings.Path, 0, len(rule.Paths))
		for _, path := range rule.Paths {
			paths = append(paths, settings.Path{Type: settings.PathType(path.Type), Value: path.Value})
		}
		var claims []settings.RequiredClaim
		for _, claim := range rule.RequireClaims {
			claims = append(claims, settings.RequiredClaim{Claim: claim.Claim, Values: claim.Values})
		}
		rendered = append(rendered, settings.Rule{
			Paths:         paths,
			Methods:       rule.Methods,
			Access:        cmp.Or(settings.Access(rule.Access), settings.AccessAuthenticated),
			RequireClaims: claims,
		})
	}
	return rendered
}

func renderUpstream(upstream api.Upstream) settings.Upstream {
	var headers []settings.ClaimHeader
	for _, header := range upstream.ClaimHeaders {
		headers = append(headers, settings.ClaimHeader{Claim: header.Claim, Header: header.Header})
	}
	return settings.Upstream{
		ClaimHeaders:  headers,
		Authorization: cmp.Or(settings.Authorization(upstream.Authorization), settings.AuthorizationForward),
	}
}

func duration(value *metav1.Duration, fallback time.Duration) settings.Duration {
	if value == nil {
		return settings.Duration(fallback)
	}
	return settings.Duration(value.Duration)
}
