// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Access says who may make a request.
//
// +kubebuilder:validation:Enum=Anonymous;Authenticated;Denied
type Access string

// The kinds of access.
const (
	// AccessAnonymous lets everybody through, without identity headers.
	AccessAnonymous Access = "Anonymous"
	// AccessAuthenticated asks for a valid token.
	AccessAuthenticated Access = "Authenticated"
	// AccessDenied lets nobody through.
	AccessDenied Access = "Denied"
)

// PathType says how a path is compared.
//
// +kubebuilder:validation:Enum=Exact;Prefix
type PathType string

// The path types.
const (
	// PathExact matches the path that is equal to the value.
	PathExact PathType = "Exact"
	// PathPrefix matches whole segments: /public matches /public and /public/a, not /publicity.
	PathPrefix PathType = "Prefix"
)

// UpstreamAuthorization says what the application sees in Authorization.
//
// +kubebuilder:validation:Enum=Forward;Remove
type UpstreamAuthorization string

// What the application sees in Authorization.
const (
	// AuthorizationForward: the newest token.
	AuthorizationForward UpstreamAuthorization = "Forward"
	// AuthorizationRemove: nothing.
	AuthorizationRemove UpstreamAuthorization = "Remove"
)

// Rule decides about the requests that match one of its paths and one of its methods.
//
// +kubebuilder:validation:XValidation:rule="!has(self.requireClaims) || self.access == 'Authenticated'",fieldPath=".requireClaims",message="requireClaims needs a token: set access to Authenticated, or remove requireClaims"
type Rule struct {
	// paths of which one must match.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Paths []Path `json:"paths,omitempty"`

	// methods of which one must match; every method when not set.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:items:Pattern=`^[A-Z]+$`
	Methods []string `json:"methods,omitempty"`

	// access says who may make the request.
	// +optional
	// +kubebuilder:default=Authenticated
	Access Access `json:"access,omitempty"`

	// requireClaims must all be met by the token.
	// +optional
	// +listType=map
	// +listMapKey=claim
	// +kubebuilder:validation:MaxItems=8
	RequireClaims []RequiredClaim `json:"requireClaims,omitempty"`
}

// Path is compared with the canonical path of the request.
type Path struct {
	// type says how value is compared.
	// +required
	Type PathType `json:"type,omitempty"`

	// value is an absolute path in canonical form: no empty or dot segments, and
	// percent-encoding in upper case only where RFC 3986 needs it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^/([A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-F]{2})*$`
	// +kubebuilder:validation:XValidation:rule="!self.contains('//') && !self.matches('(^|/)[.][.]?(/|$)') && !self.matches('%([01]|2[14-9A-F]|3[0-9ABD]|4|5[0-9ACF]|6[1-9A-F]|7[0-9AEF])')",message="a path has one canonical form: remove empty and dot segments, and write characters that need no percent-encoding as they are"
	Value string `json:"value,omitempty"`
}

// RequiredClaim is met when the claim has one of the values, or is a list with one of them.
type RequiredClaim struct {
	// claim is the name in the token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9_.:/-]*$`
	Claim string `json:"claim,omitempty"`

	// values of which the claim must have one.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Values []string `json:"values,omitempty"`
}

// Upstream says what the application is told about the caller.
type Upstream struct {
	// claimHeaders are request headers that carry claims to the application. What
	// a client sends under these names is dropped.
	// +optional
	// +listType=map
	// +listMapKey=header
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a.header.lowerAscii() == b.header.lowerAscii()))",message="two entries name the same header in different case: keep one"
	ClaimHeaders []ClaimHeader `json:"claimHeaders,omitempty"`

	// authorization is Forward (the application sees the newest token) or Remove.
	// +optional
	// +kubebuilder:default=Forward
	Authorization UpstreamAuthorization `json:"authorization,omitempty"`
}

// ClaimHeader copies a claim into a request header. A list is joined with commas; a
// token without the claim makes no header.
type ClaimHeader struct {
	// claim is the name in the token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9_.:/-]*$`
	Claim string `json:"claim,omitempty"`

	// header is the request header.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9-]*$`
	// +kubebuilder:validation:XValidation:rule="!(self.lowerAscii() in ['authorization', 'host', 'connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'content-length', 'content-type', 'content-encoding', 'expect', 'cookie', 'origin', 'range', 'accept', 'accept-encoding', 'via', 'forwarded', 'user-agent', 'date', 'http2-settings']) && !self.lowerAscii().startsWith('proxy-') && !self.lowerAscii().startsWith('x-forwarded-') && !self.lowerAscii().startsWith('sec-') && !self.lowerAscii().startsWith('access-control-')",message="this request header has a meaning of its own: use a name such as X-User-Id"
	Header string `json:"header,omitempty"`
}

// Denial shapes the answer to a failed authentication.
type Denial struct {
	// statusCode is 403 or 401, for every failed authentication.
	// +optional
	// +kubebuilder:default=403
	// +kubebuilder:validation:Enum=401;403
	StatusCode int32 `json:"statusCode,omitempty"`
}

// Endpoints says where clients find login, refresh, logout, me and the key set.
type Endpoints struct {
	// prefix of the endpoints: with /auth the login is POST /auth/token. The
	// application does not see requests below it.
	// +optional
	// +kubebuilder:default="/auth"
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^(/[A-Za-z0-9_~-]+)+$`
	Prefix string `json:"prefix,omitempty"`
}
