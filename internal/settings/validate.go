// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The bounds of durations; the API has the same.
const (
	maxLeeway = time.Minute
	maxEarly  = 24 * time.Hour
)

// Validate checks everything but Keys, whose document internal/token reads. What is
// wrong is a [FieldError], or several joined.
func (s *Settings) Validate() error {
	v := &validation{}
	v.require("policy.namespace", s.Policy.Namespace, "write the namespace of the TokenPolicy")
	v.require("policy.name", s.Policy.Name, "write the name of the TokenPolicy")
	v.require("policy.uid", s.Policy.UID, "write the UID of the TokenPolicy")
	v.check(s.Policy.Generation > 0, "policy.generation", fmt.Sprint(s.Policy.Generation), "generations begin at 1")
	v.oneOf("enforcement", string(s.Enforcement), string(Enforce), string(Audit))
	v.httpsURL("issuer", s.Issuer, true)
	v.check(len(s.Audiences) > 0, "audiences", "", "name at least one audience")
	for i, a := range s.Audiences {
		v.require(fmt.Sprintf("audiences[%d]", i), a, "write an audience or remove the entry")
	}
	v.between("leeway", s.Leeway, maxLeeway)
	keys := bytes.TrimSpace(s.Keys)
	v.check(len(keys) > 0 && keys[0] == '{', "keys", string(keys[:min(len(keys), 32)]), "write a key set document, a JSON object")
	v.refresh(s.Refresh)
	for i, r := range s.Rules {
		v.rule(fmt.Sprintf("rules[%d]", i), r)
	}
	v.upstream(s.Upstream)
	v.check(s.Denial.StatusCode == 401 || s.Denial.StatusCode == 403, "denial.statusCode", fmt.Sprint(s.Denial.StatusCode), "write 401 or 403")
	v.prefix(s.Endpoints.Prefix)
	v.httpsURL("issuerService.url", s.IssuerService.URL, false)
	v.caBundle(s.IssuerService.CABundle)
	return errors.Join(v.errs...)
}

// validation gathers what is wrong, so that one look at the error mends the file.
type validation struct{ errs []error }

func (v *validation) check(ok bool, field, value, remedy string) {
	if !ok {
		v.errs = append(v.errs, &FieldError{Field: field, Value: value, Remedy: remedy})
	}
}

func (v *validation) require(field, value, remedy string) {
	v.check(value != "", field, "", remedy)
}

func (v *validation) oneOf(field, value string, allowed ...string) {
	v.check(slices.Contains(allowed, value), field, value, "write "+strings.Join(allowed, " or "))
}

func (v *validation) between(field string, d Duration, most time.Duration) {
	v.check(d >= 0 && time.Duration(d) <= most, field, time.Duration(d).String(), "write a duration from 0s to "+most.String())
}

func (v *validation) httpsURL(field, value string, pathAllowed bool) {
	remedy := "write an https URL without user, query and fragment, such as https://shop.example.com"
	if !pathAllowed {
		remedy = "write an https URL of host and port alone, such as https://tokenward-issuer.tokenward-system.svc:443"
	}
	u, err := url.Parse(value)
	ok := err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && !strings.ContainsAny(value, "?#")
	if ok && !pathAllowed {
		ok = u.Path == ""
	}
	v.check(ok, field, value, remedy)
}

func (v *validation) refresh(r Refresh) {
	v.oneOf("refresh.onExpired", string(r.OnExpired), string(OnExpiredRefresh), string(OnExpiredReject))
	v.check(isHeaderName(r.ResponseHeader), "refresh.responseHeader", r.ResponseHeader, "write a header name of letters, digits and hyphens, such as Authorization")
	v.check(!isReserved(r.ResponseHeader, reservedResponseHeaders, "access-control-"), "refresh.responseHeader", r.ResponseHeader, "this header has a meaning of its own: write Authorization or a name such as X-New-Token")
	v.between("refresh.early", r.Early, maxEarly)
}

func (v *validation) rule(field string, r Rule) {
	v.oneOf(field+".access", string(r.Access), string(AccessAnonymous), string(AccessAuthenticated), string(AccessDenied))
	v.check(len(r.Paths) > 0, field+".paths", "", "name at least one path")
	for i, p := range r.Paths {
		at := fmt.Sprintf("%s.paths[%d]", field, i)
		v.oneOf(at+".type", string(p.Type), string(PathExact), string(PathPrefix))
		canonical, err := CanonicalPath(p.Value)
		switch {
		case err != nil:
			v.check(false, at+".value", p.Value, err.Error()+": write it in canonical form")
		case canonical != p.Value:
			v.check(false, at+".value", p.Value, "write it in canonical form: "+canonical)
		}
	}
	for i, m := range r.Methods {
		v.check(isMethod(m), fmt.Sprintf("%s.methods[%d]", field, i), m, "write a method in capitals, such as GET")
	}
	v.check(len(r.RequireClaims) == 0 || r.Access == AccessAuthenticated, field+".requireClaims", "there with access "+string(r.Access), "set access to Authenticated, or remove requireClaims")
	for i, c := range r.RequireClaims {
		at := fmt.Sprintf("%s.requireClaims[%d]", field, i)
		v.require(at+".claim", c.Claim, "name a claim")
		v.check(len(c.Values) > 0, at+".values", "", "name at least one value")
	}
}

func (v *validation) upstream(u Upstream) {
	v.oneOf("upstream.authorization", string(u.Authorization), string(AuthorizationForward), string(AuthorizationRemove))
	seen := map[string]bool{}
	for i, h := range u.ClaimHeaders {
		at := fmt.Sprintf("upstream.claimHeaders[%d]", i)
		v.require(at+".claim", h.Claim, "name a claim")
		v.check(isHeaderName(h.Header), at+".header", h.Header, "write a header name of letters, digits and hyphens, such as X-User-Id")
		v.check(!isReserved(h.Header, reservedRequestHeaders, "proxy-", "x-forwarded-", "sec-", "access-control-"), at+".header", h.Header, "this header has a meaning of its own: write a name such as X-User-Id")
		folded := strings.ToLower(h.Header)
		v.check(!seen[folded], at+".header", h.Header, "two entries name this header: keep one")
		seen[folded] = true
	}
}

func (v *validation) prefix(prefix string) {
	canonical, err := CanonicalPath(prefix)
	ok := err == nil && canonical == prefix && len(prefix) > 1 && !strings.HasSuffix(prefix, "/")
	v.check(ok, "endpoints.prefix", prefix, "write an absolute path without a slash at its end, such as /auth")
}

func (v *validation) caBundle(bundle string) {
	const field, remedy = "issuerService.caBundle", "write the PEM certificates of the authorities that sign the issuer's certificate"
	if bundle == "" {
		v.require(field, "", remedy)
		return
	}
	found := false
	for rest := []byte(bundle); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		_, err := x509.ParseCertificate(block.Bytes)
		v.check(block.Type == "CERTIFICATE" && err == nil, field, "a PEM block "+block.Type, remedy)
		found = true
	}
	v.check(found, field, "not PEM", remedy)
}

// isHeaderName is narrower than RFC 9110 section 5.1: names that every server and
// gateway interface spells alike.
func isHeaderName(s string) bool {
	if s == "" || len(s) > 64 || !isLetter(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isMethod(s string) bool {
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

func isReserved(name string, names []string, prefixes ...string) bool {
	name = strings.ToLower(name)
	return slices.Contains(names, name) || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Headers that neither a claim nor a new token may be written into. The API has the
// same lists, for a sentence at admission.
var (
	reservedRequestHeaders = []string{
		"authorization", "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
		"content-length", "content-type", "content-encoding", "expect", "cookie", "origin", "range", "accept",
		"accept-encoding", "via", "forwarded", "user-agent", "date", "http2-settings",
	}
	reservedResponseHeaders = []string{
		"connection", "keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade",
		"content-length", "content-type", "content-encoding", "content-range", "set-cookie", "location",
		"www-authenticate", "date", "server", "vary", "cache-control", "etag", "retry-after", "host", "age",
		"expires", "last-modified", "allow", "alt-svc", "link", "refresh",
	}
)
