// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types. Every condition carries observedGeneration.
const (
	// ConditionReady says whether the object does what its spec says. On a
	// TokenPolicy it sums up the other conditions.
	ConditionReady = "Ready"
	// ConditionSettingsPublished (TokenPolicy) says whether the sidecars' settings
	// and key set are in the ConfigMap that pods mount. When it turns false the last
	// good settings stay in force.
	ConditionSettingsPublished = "SettingsPublished"
	// ConditionUsersReady (TokenPolicy) says whether the issuer can use the user
	// source. Written by the issuer, which alone reads user sources.
	ConditionUsersReady = "UsersReady"
	// ConditionStoreReady (TokenPolicy) says whether the issuer can keep sessions. Written
	// by the issuer.
	ConditionStoreReady = "StoreReady"
	// ConditionBypassable (TokenPolicy) says whether a Service leads to the policy's pods
	// past their sidecars, or the manager can connect there: true is what nobody wants. It is a remark and not a part of
	// Ready: the policy does what its spec says, the sidecars check what comes to them, and
	// what to change is a Service, which may be somebody else's. It is found by looking at
	// Services and by connecting to a few pods; false does not say that nobody can.
	ConditionBypassable = "Bypassable"
	// ConditionNetworkPolicyApplied (TokenPolicy) says whether the NetworkPolicy that
	// spec.networkPolicy asks for is there. Part of Ready; absent when none is asked for.
	ConditionNetworkPolicyApplied = "NetworkPolicyApplied"
)

// Reasons of ConditionReady on a SigningKey.
const (
	// ReasonKeyActive: there is a key that signs.
	ReasonKeyActive = "KeyActive"
	// ReasonKeyRecovered: the Secret with the private key was lost. Tokens signed
	// before still verify, and a new key signs from now on.
	ReasonKeyRecovered = "KeyRecovered"
	// ReasonSecretNotFound: the Secret, or the key in it, that the spec names does not exist.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretAccessDenied: the tenant has not granted reading the Secret. The
	// message holds the kubectl lines that grant it.
	ReasonSecretAccessDenied = "SecretAccessDenied"
	// ReasonKeyInvalid: what the Secret holds is not a private key for spec.algorithm.
	ReasonKeyInvalid = "KeyInvalid"
	// ReasonKeyTooShort: the imported RSA key has fewer than 2048 bits.
	ReasonKeyTooShort = "KeyTooShort"
)

// Reasons of the conditions of a TokenPolicy.
const (
	// ReasonReady: every part works.
	ReasonReady = "Ready"
	// ReasonPublished: the ConfigMap holds the settings of this generation.
	ReasonPublished = "Published"
	// ReasonSigningKeyNotFound: spec.signingKeyRef names no SigningKey of this namespace.
	ReasonSigningKeyNotFound = "SigningKeyNotFound"
	// ReasonSigningKeyNotReady: the SigningKey has no key that signs yet.
	ReasonSigningKeyNotReady = "SigningKeyNotReady"
	// ReasonRuleUnreachable: a rule can never match, because an earlier one takes all its requests.
	ReasonRuleUnreachable = "RuleUnreachable"
	// ReasonSpecInvalid: the spec passed admission, but no sidecar could use what it says.
	ReasonSpecInvalid = "SpecInvalid"
	// ReasonConfigMapConflict: the ConfigMap's name is taken by an object that is not ours.
	ReasonConfigMapConflict = "ConfigMapConflict"
	// ReasonCertificatesPending: the installation's own certificates are not made yet.
	// It passes by itself.
	ReasonCertificatesPending = "CertificatesPending"
	// ReasonUsersReady: the user source answers.
	ReasonUsersReady = "UsersReady"
	// ReasonUsersPartlyInvalid: some users of the source cannot log in, because
	// their entries are broken; the others can.
	ReasonUsersPartlyInvalid = "UsersPartlyInvalid"
	// ReasonUsersUnavailable: the user source cannot be read for now.
	ReasonUsersUnavailable = "UsersUnavailable"
	// ReasonStoreReady: the session store can be used.
	ReasonStoreReady = "StoreReady"
	// ReasonStorePartlyUnreadable: some records of sessions do not open; the others do.
	ReasonStorePartlyUnreadable = "StorePartlyUnreadable"
	// ReasonStoreFull: there is no room for another session. Those that exist go on.
	ReasonStoreFull = "StoreFull"
	// ReasonStoreUnavailable: the session store cannot be used for now.
	ReasonStoreUnavailable = "StoreUnavailable"
	// ReasonPending: the issuer has not reported on this generation yet.
	ReasonPending = "Pending"
)

// Reasons of UsersReady and StoreReady where a server is asked.
const (
	// ReasonSecretInvalid: the Secret with the credentials holds something else than it should.
	ReasonSecretInvalid = "SecretInvalid"
	// ReasonAddressRefused: the host is at an address that policies may not reach.
	ReasonAddressRefused = "AddressRefused"
	// ReasonUnreachable: nobody answers at the address.
	ReasonUnreachable = "Unreachable"
	// ReasonTLSNotTrusted: the server speaks no TLS, or its certificate is not trusted.
	ReasonTLSNotTrusted = "TLSNotTrusted"
	// ReasonCredentialsRefused: the server does not let the issuer in.
	ReasonCredentialsRefused = "CredentialsRefused"
	// ReasonPermissionDenied: the user that the Secret names may not do what the store needs.
	ReasonPermissionDenied = "PermissionDenied"
	// ReasonDatabaseMissing: the server has no such database.
	ReasonDatabaseMissing = "DatabaseMissing"
	// ReasonSchemaMismatch: a query asks for what the database does not have, or does not
	// understand, or may not show.
	ReasonSchemaMismatch = "SchemaMismatch"
	// ReasonAnswerInvalid: the source answers, but not as agreed.
	ReasonAnswerInvalid = "AnswerInvalid"
	// ReasonTimeout: the source takes too long to answer.
	ReasonTimeout = "Timeout"
	// ReasonWrongMode: the servers do not belong together as spec.store.redis.mode says.
	ReasonWrongMode = "WrongMode"
	// ReasonReadOnly: the server takes no writes.
	ReasonReadOnly = "ReadOnly"
	// ReasonEvicts: the server drops sessions when its memory is full.
	ReasonEvicts = "Evicts"
	// ReasonNewerRelease: a newer release has written what this one does not understand.
	ReasonNewerRelease = "NewerRelease"
)

// Reasons of ConditionBypassable.
const (
	// ReasonServicePastSidecar (true): a Service leads to the application's port.
	ReasonServicePastSidecar = "ServicePastSidecar"
	// ReasonOtherPortServed (true): a Service leads to a port of the pods that is neither
	// the application's nor the sidecar's. Nothing is checked there.
	ReasonOtherPortServed = "OtherPortServed"
	// ReasonApplicationPortOpen (true): the manager connected to the application's port of a
	// pod, past the sidecar.
	ReasonApplicationPortOpen = "ApplicationPortOpen"
	// ReasonNoneFound (false): no Service leads past the sidecar, and no connection to the
	// application's port was accepted, if any was tried.
	ReasonNoneFound = "NoneFound"
	// ReasonRedirected (false): all pods have Redirect capture, which no Service gets round.
	ReasonRedirected = "Redirected"
	// ReasonNoPods (false): there is no pod to which anything could lead.
	ReasonNoPods = "NoPods"
)

// Reasons of ConditionNetworkPolicyApplied.
const (
	// ReasonApplied: the NetworkPolicy is there, and selects all pods of the policy.
	ReasonApplied = "Applied"
	// ReasonPodsNotSelected: the NetworkPolicy is there, but some pods lack the labels that it selects by.
	ReasonPodsNotSelected = "PodsNotSelected"
	// ReasonNetworkPolicyConflict: the NetworkPolicy's name is taken by an object that is not ours.
	ReasonNetworkPolicyConflict = "NetworkPolicyConflict"
)
