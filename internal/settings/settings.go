// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"encoding/json"
	"time"
)

const (
	// Version is the format that this package writes and reads.
	Version = 1
	// Key is the key of the ConfigMap, and the name of the file in the volume.
	Key = "settings.json"
)

// Settings are what one policy's sidecars go by.
type Settings struct {
	// Version of the writer, and the lowest reader version that may use the file.
	Version   int `json:"version"`
	MinReader int `json:"minReader"`

	Policy      Policy      `json:"policy"`
	Enforcement Enforcement `json:"enforcement"`

	// Issuer and Audiences are what a token needs in "iss" and "aud" (RFC 7519).
	Issuer    string   `json:"issuer"`
	Audiences []string `json:"audiences"`
	// Leeway is the clock difference that every time check allows.
	Leeway Duration `json:"leeway"`

	// Keys is a key set document as internal/token writes it: who owns it, its
	// monotonic version, and public JWKs.
	Keys json.RawMessage `json:"keys"`

	Refresh   Refresh   `json:"refresh"`
	Rules     []Rule    `json:"rules"`
	Upstream  Upstream  `json:"upstream"`
	Denial    Denial    `json:"denial"`
	Endpoints Endpoints `json:"endpoints"`

	IssuerService IssuerService `json:"issuerService"`
}

// Policy is which TokenPolicy the settings were rendered from.
type Policy struct {
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
	Generation int64  `json:"generation"`
}

// Enforcement as in the API.
type Enforcement string

// The enforcement modes.
const (
	Enforce Enforcement = "Enforce"
	Audit   Enforcement = "Audit"
)

// Refresh says what happens to an expired token.
type Refresh struct {
	OnExpired      OnExpired `json:"onExpired"`
	ResponseHeader string    `json:"responseHeader"`
	// Early: tokens this close to expiry are refreshed too; 0 turns it off.
	Early Duration `json:"early"`
}

// OnExpired as in the API.
type OnExpired string

// The answers to an expired token.
const (
	OnExpiredRefresh OnExpired = "Refresh"
	OnExpiredReject  OnExpired = "Reject"
)

// Rule decides about requests by path and method; the first match wins.
type Rule struct {
	Paths []Path `json:"paths"`
	// Methods of which one must match; empty means every method.
	Methods       []string        `json:"methods,omitempty"`
	Access        Access          `json:"access"`
	RequireClaims []RequiredClaim `json:"requireClaims,omitempty"`
}

// Path is compared with the canonical path.
type Path struct {
	Type  PathType `json:"type"`
	Value string   `json:"value"`
}

// PathType as in the API.
type PathType string

// The path types.
const (
	PathExact  PathType = "Exact"
	PathPrefix PathType = "Prefix"
)

// Access as in the API.
type Access string

// The kinds of access.
const (
	AccessAnonymous     Access = "Anonymous"
	AccessAuthenticated Access = "Authenticated"
	AccessDenied        Access = "Denied"
)

// RequiredClaim is met when the claim has one of the values, or is a list with one of them.
type RequiredClaim struct {
	Claim  string   `json:"claim"`
	Values []string `json:"values"`
}

// Upstream says what the application is told about the caller.
type Upstream struct {
	ClaimHeaders  []ClaimHeader `json:"claimHeaders,omitempty"`
	Authorization Authorization `json:"authorization"`
}

// ClaimHeader copies a claim into a request header.
type ClaimHeader struct {
	Claim  string `json:"claim"`
	Header string `json:"header"`
}

// Authorization is what the application sees in the header of that name.
type Authorization string

// What the application sees in Authorization.
const (
	AuthorizationForward Authorization = "Forward"
	AuthorizationRemove  Authorization = "Remove"
)

// Denial shapes the answer to a failed authentication.
type Denial struct {
	StatusCode int `json:"statusCode"`
}

// Endpoints says where clients find login and the rest.
type Endpoints struct {
	Prefix string `json:"prefix"`
}

// IssuerService is where the sidecar finds the issuer.
type IssuerService struct {
	// URL is https, host and port, without a path.
	URL string `json:"url"`
	// CABundle is PEM: the authorities that may have signed the issuer's certificate.
	CABundle string `json:"caBundle"`
}

// Duration is a time.Duration that is written as a string, for example "5m0s".
type Duration time.Duration

// MarshalText writes the form that [time.ParseDuration] reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads the form that [time.ParseDuration] reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}
