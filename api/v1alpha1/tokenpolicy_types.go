// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Enforcement says what happens to a request that is not allowed.
//
// +kubebuilder:validation:Enum=Enforce;Audit
type Enforcement string

// The enforcement modes.
const (
	// Enforce refuses it.
	Enforce Enforcement = "Enforce"
	// Audit decides, counts and logs, then lets it through without identity headers.
	Audit Enforcement = "Audit"
)

// OnExpired says what happens to a request whose token has expired and is
// otherwise right.
//
// +kubebuilder:validation:Enum=Refresh;Reject
type OnExpired string

// The answers to an expired token.
const (
	// OnExpiredRefresh buys a new token with the stored refresh token and lets the request through.
	OnExpiredRefresh OnExpired = "Refresh"
	// OnExpiredReject refuses the request; the client logs in again.
	OnExpiredReject OnExpired = "Reject"
)

// OnReuse says what happens when a token that was already exchanged is presented
// for a refresh once more, after the grace.
//
// +kubebuilder:validation:Enum=RevokeSession;Deny
type OnReuse string

// The answers to a reused token.
const (
	// OnReuseRevokeSession ends the session: one of the two holders is a thief (RFC 9700 section 4.14.2).
	OnReuseRevokeSession OnReuse = "RevokeSession"
	// OnReuseDeny refuses this request only.
	OnReuseDeny OnReuse = "Deny"
)

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

// TokenPolicySpec says who may call the workloads that name this policy, and
// how their tokens are made, checked and refreshed.
//
// +kubebuilder:validation:XValidation:rule="duration(self.accessToken.ttl) <= duration(self.refresh.idleTimeout)",fieldPath=".accessToken.ttl",message="accessToken.ttl must not be longer than refresh.idleTimeout: shorten ttl or lengthen idleTimeout"
// +kubebuilder:validation:XValidation:rule="duration(self.refresh.idleTimeout) <= duration(self.refresh.absoluteTimeout)",fieldPath=".refresh.idleTimeout",message="refresh.idleTimeout must not be longer than refresh.absoluteTimeout: shorten idleTimeout or lengthen absoluteTimeout"
// +kubebuilder:validation:XValidation:rule="self.store.configMap.maxSessions <= self.store.configMap.shards * 1000",fieldPath=".store.configMap.maxSessions",message="a ConfigMap holds about 1000 sessions: set store.configMap.shards to at least maxSessions divided by 1000"
// +kubebuilder:validation:XValidation:rule="duration(self.refresh.early) < duration(self.accessToken.ttl)",fieldPath=".refresh.early",message="refresh.early must be shorter than accessToken.ttl, or every request would refresh: shorten early, 0s turns it off"
// +kubebuilder:validation:XValidation:rule="!has(self.accessToken.claims) || self.accessToken.claims.all(c, c.attribute != 'password')",fieldPath=".accessToken.claims",message="the attribute password never goes into a token: remove the claim"
type TokenPolicySpec struct {
	// enforcement is Enforce, or Audit to see what would be refused before refusing it.
	// +optional
	// +kubebuilder:default=Enforce
	Enforcement Enforcement `json:"enforcement,omitempty"`

	// signingKeyRef names the SigningKey of this namespace that signs the tokens.
	// +required
	SigningKeyRef SigningKeyReference `json:"signingKeyRef,omitzero"`

	// issuer is the "iss" claim of new tokens, required of presented ones (RFC 7519 section 4.1.1).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && url(self).getHost() != '' && !self.contains('?') && !self.contains('#')",message="issuer must be an https URL without query or fragment (RFC 8414 section 2): write for example https://shop.example.com"
	Issuer string `json:"issuer,omitempty"`

	// audiences are the "aud" claim of new tokens; a presented token needs one of them
	// (RFC 7519 section 4.1.3).
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Audiences []string `json:"audiences,omitempty"`

	// leeway is the clock difference that every time check allows; at most 60s.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('60s')",message="leeway must be at most 60s: mend the clocks instead of allowing more"
	Leeway *metav1.Duration `json:"leeway,omitempty"`

	// accessToken shapes the tokens.
	// +optional
	// +kubebuilder:default={}
	AccessToken AccessToken `json:"accessToken,omitzero"`

	// users is the source that knows the users.
	// +required
	Users Users `json:"users,omitzero"`

	// refresh says how an expired token is exchanged for a new one.
	// +optional
	// +kubebuilder:default={}
	Refresh Refresh `json:"refresh,omitzero"`

	// store is where sessions, the server-side refresh tokens, live.
	// +optional
	// +kubebuilder:default={configMap: {}}
	Store Store `json:"store,omitzero"`

	// rules decide by path and method; the first match wins, and a request that
	// matches none must be authenticated.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Rules []Rule `json:"rules,omitempty"`

	// upstream says what the application is told about the caller.
	// +optional
	// +kubebuilder:default={}
	Upstream Upstream `json:"upstream,omitzero"`

	// denial shapes the answer to a failed authentication.
	// +optional
	// +kubebuilder:default={}
	Denial Denial `json:"denial,omitzero"`

	// endpoints says where clients find login, refresh, logout, me and the key set.
	// +optional
	// +kubebuilder:default={}
	Endpoints Endpoints `json:"endpoints,omitzero"`
}

// SigningKeyReference names a SigningKey of the same namespace.
type SigningKeyReference struct {
	// name of the SigningKey.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`
}

// AccessToken shapes the tokens.
type AccessToken struct {
	// ttl is how long a token is valid; from 30s to 24h.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('30s') && duration(self) <= duration('24h')",message="ttl must be from 30s to 24h: write for example 5m"
	TTL *metav1.Duration `json:"ttl,omitempty"`

	// claims are user attributes that are copied into the token.
	// +optional
	// +listType=map
	// +listMapKey=claim
	// +kubebuilder:validation:MaxItems=16
	Claims []ClaimMapping `json:"claims,omitempty"`
}

// ClaimMapping copies a user attribute into a claim.
type ClaimMapping struct {
	// claim is the name in the token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9_.:/-]*$`
	// +kubebuilder:validation:XValidation:rule="!(self.lowerAscii() in ['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'sid', 'gen', 'client_id', 'typ', 'cnf', 'azp', 'nonce', 'at_hash', 'act', 'scope'])",message="this claim has a fixed meaning and is set by Tokenward or reserved: choose another claim name"
	Claim string `json:"claim,omitempty"`

	// attribute is the name at the user source. A user without it gets a token without the claim.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_.-]*$`
	Attribute string `json:"attribute,omitempty"`
}

// Users is exactly one source of users.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
type Users struct {
	// secret holds one user per key.
	// +required
	Secret *SecretUsers `json:"secret,omitempty"`
}

// SecretUsers is a Secret with one key per user id, each a JSON object of
// attributes, for example
// {"password": "$argon2id$v=19$…", "phone": "+82 10 1234 5678", "role": "admin"}.
// The attribute "disabled": true shuts a user out.
type SecretUsers struct {
	// name of the Secret of this namespace. The namespace must grant reading it to
	// the issuer; the UsersReady condition holds the lines to do so.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// fields are what a login must present beside "id"; each must match the user's
	// attribute of that name. An attribute that is an argon2id or bcrypt hash is
	// verified as one, any other is compared in constant time; "password" must be a hash.
	// +optional
	// +kubebuilder:default={password}
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:XValidation:rule="!('id' in self) && !('disabled' in self)",message="fields are compared with the user's attributes, and id always is presented: remove id and disabled, and name at least one attribute such as password or phone"
	Fields []string `json:"fields,omitempty"`
}

// Refresh says how an expired token is exchanged for a new one.
type Refresh struct {
	// onExpired is Refresh, or Reject to have clients log in again. A token that is
	// wrong in any other way is never refreshed.
	// +optional
	// +kubebuilder:default=Refresh
	OnExpired OnExpired `json:"onExpired,omitempty"`

	// responseHeader is the header that carries a new token to the client, as "Bearer <token>".
	// +optional
	// +kubebuilder:default=Authorization
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z][A-Za-z0-9-]*$`
	// +kubebuilder:validation:XValidation:rule="!(self.lowerAscii() in ['connection', 'keep-alive', 'proxy-authenticate', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'content-length', 'content-type', 'content-encoding', 'content-range', 'set-cookie', 'location', 'www-authenticate', 'date', 'server', 'vary', 'cache-control', 'etag', 'retry-after', 'host', 'age', 'expires', 'last-modified', 'allow', 'alt-svc', 'link', 'refresh']) && !self.lowerAscii().startsWith('access-control-')",message="this response header has a meaning of its own: use Authorization or a name such as X-New-Token"
	ResponseHeader string `json:"responseHeader,omitempty"`

	// early says how close to its expiry a token is refreshed already; 0s turns it off. A
	// request whose token is still valid never fails because of it.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	Early *metav1.Duration `json:"early,omitempty"`

	// reuseGrace is how long the token before the current one still gets the current
	// one, for answers that were lost and requests sent side by side; at most 60s.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('60s')",message="reuseGrace must be at most 60s: a thief profits from every second of it"
	ReuseGrace *metav1.Duration `json:"reuseGrace,omitempty"`

	// onReuse says what happens to a token that is presented again after the grace.
	// +optional
	// +kubebuilder:default=RevokeSession
	OnReuse OnReuse `json:"onReuse,omitempty"`

	// idleTimeout ends a session that was not refreshed for this long.
	// +optional
	// +kubebuilder:default="12h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	IdleTimeout *metav1.Duration `json:"idleTimeout,omitempty"`

	// absoluteTimeout ends a session this long after the login, whatever happened
	// since; at most 8760h.
	// +optional
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('8760h')",message="absoluteTimeout must be at most 8760h (a year): have users log in again"
	AbsoluteTimeout *metav1.Duration `json:"absoluteTimeout,omitempty"`
}

// Store is exactly one place where sessions live.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
type Store struct {
	// configMap keeps sessions, sealed, in ConfigMaps of the operator's namespace.
	// +required
	ConfigMap *ConfigMapStore `json:"configMap,omitempty"`
}

// ConfigMapStore keeps sessions in ConfigMaps.
type ConfigMapStore struct {
	// shards is the number of ConfigMaps; it cannot be changed afterwards.
	// +optional
	// +kubebuilder:default=16
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="shards cannot be changed, sessions would be lost: create another TokenPolicy"
	Shards int32 `json:"shards,omitempty"`

	// maxSessions is how many sessions there may be at one time; a login beyond it
	// is refused with the reason store_full.
	// +optional
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64000
	MaxSessions int32 `json:"maxSessions,omitempty"`
}

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

// PodCounts counts the running pods that carry the sidecar under this policy.
type PodCounts struct {
	// injected is how many there are.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Injected int32 `json:"injected"`

	// outdated is how many of them carry another sidecar than would be injected now:
	// restart them to get it. A changed policy reaches pods without a restart.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Outdated int32 `json:"outdated"`
}

// TokenPolicyStatus reports what is in force.
type TokenPolicyStatus struct {
	// observedGeneration is the generation of the spec that this status reports on.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions of the policy: Ready, SettingsPublished, UsersReady.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// pods counts the pods under this policy.
	// +optional
	Pods *PodCounts `json:"pods,omitempty"`
}

// TokenPolicy is what a pod names in its annotation tokenward.io/policy to get
// token authentication.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=tokenpolicies,shortName=tpol,categories=tokenward
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods.injected`
// +kubebuilder:printcolumn:name="Outdated",type=integer,priority=1,JSONPath=`.status.pods.outdated`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="metadata.name must have at most 63 characters: choose a shorter name"
type TokenPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata; the name has at most 63 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says who may call, and how tokens are made, checked and refreshed.
	// +required
	Spec TokenPolicySpec `json:"spec,omitzero"`
	// status reports what is in force.
	// +optional
	Status TokenPolicyStatus `json:"status,omitzero"`
}

// TokenPolicyList is a list of TokenPolicies.
//
// +kubebuilder:object:root=true
type TokenPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []TokenPolicy `json:"items"`
}
