// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Store is exactly one place where sessions live. Its kind cannot be changed: the
// sessions would stay behind, and everybody would be logged out.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.configMap) == has(oldSelf.configMap) && has(self.redis) == has(oldSelf.redis)",message="another kind of store would leave the sessions behind and log everybody out: create another TokenPolicy and move the workloads to it"
type Store struct {
	// configMap keeps sessions, sealed, in ConfigMaps of the operator's namespace.
	// +optional
	ConfigMap *ConfigMapStore `json:"configMap,omitempty"`

	// redis keeps sessions in a Redis of yours.
	// +optional
	Redis *RedisStore `json:"redis,omitempty"`

	// postgres keeps sessions in a PostgreSQL database of yours.
	// +optional
	Postgres *PostgresStore `json:"postgres,omitempty"`
}

// ConfigMapStore keeps sessions in ConfigMaps.
//
// +kubebuilder:validation:XValidation:rule="!has(self.maxSessions) || !has(self.shards) || self.maxSessions <= self.shards * 1000",fieldPath=".maxSessions",message="a ConfigMap holds about 1000 sessions: set shards to at least maxSessions divided by 1000"
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

// RedisMode is how the servers at the addresses belong together.
//
// +kubebuilder:validation:Enum=Single;Sentinel;Cluster
type RedisMode string

// The modes.
const (
	// RedisSingle is one server; also a managed Redis behind one address.
	RedisSingle RedisMode = "Single"
	// RedisSentinel asks the Sentinels at the addresses who the primary is.
	RedisSentinel RedisMode = "Sentinel"
	// RedisCluster is a Redis Cluster; the addresses are some of its nodes.
	RedisCluster RedisMode = "Cluster"
)

// TLSMode says whether connections are encrypted and the server verified.
//
// +kubebuilder:validation:Enum=Verify;Disable
type TLSMode string

// The modes. There is nothing in between: encryption to whoever answers protects nothing.
const (
	// TLSVerify encrypts, and verifies the server's certificate and name.
	TLSVerify TLSMode = "Verify"
	// TLSDisable does without, where something else protects the connection.
	TLSDisable TLSMode = "Disable"
)

// RedisStore keeps sessions in Redis 6.0 or later.
//
// +kubebuilder:validation:XValidation:rule="self.mode != 'Single' || self.addresses.size() == 1",fieldPath=".addresses",message="mode Single has one address: remove the others, or set mode to Sentinel or Cluster"
// +kubebuilder:validation:XValidation:rule="(self.mode == 'Sentinel') == has(self.masterName)",fieldPath=".masterName",message="masterName is the name of the group that the Sentinels watch: set it with mode Sentinel, and with no other mode"
// +kubebuilder:validation:XValidation:rule="self.mode != 'Cluster' || self.database == 0",fieldPath=".database",message="a Redis Cluster only has database 0: remove database"
type RedisStore struct {
	// mode is Single, Sentinel or Cluster.
	// +optional
	// +kubebuilder:default=Single
	Mode RedisMode `json:"mode,omitempty"`

	// addresses are host:port: the server's with mode Single, else one or more of the
	// Sentinels or of the nodes of the Cluster.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=3
	// +kubebuilder:validation:items:MaxLength=260
	// +kubebuilder:validation:items:Pattern=`^([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}$`
	Addresses []string `json:"addresses,omitempty"`

	// masterName is the name of the group that the Sentinels watch.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.-]+$`
	MasterName string `json:"masterName,omitempty"`

	// database is the number of the database; it cannot be changed afterwards.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="database cannot be changed, sessions would stay behind: create another TokenPolicy"
	Database int32 `json:"database,omitempty"`

	// keyPrefix begins every key, so that several users can share a Redis; it cannot be
	// changed afterwards.
	// +optional
	// +kubebuilder:default="tokenward:"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.:/-]+$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="keyPrefix cannot be changed, sessions would stay behind: create another TokenPolicy"
	KeyPrefix string `json:"keyPrefix,omitempty"`

	// tls is Verify, or Disable where something else protects the connection.
	// +optional
	// +kubebuilder:default=Verify
	TLS TLSMode `json:"tls,omitempty"`

	// secretRef names the Secret with the keys username, password, sentinel-username,
	// sentinel-password, ca.crt, tls.crt and tls.key, all of them optional. A Redis without
	// password and with a publicly trusted certificate needs none.
	// +optional
	SecretRef *SecretReference `json:"secretRef,omitempty"`

	// maxConnections of each issuer to each server, beside two that follow revocations.
	// +optional
	// +kubebuilder:default=20
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=200
	MaxConnections int32 `json:"maxConnections,omitempty"`
}

// PostgresStore keeps sessions in a schema "tokenward" of PostgreSQL 12 or later,
// which the issuer makes and migrates.
type PostgresStore struct {
	// secretRef names the Secret with the key url, postgres://user:password@host:port/database,
	// and optionally ca.crt, the CA of the server's certificate.
	// +required
	SecretRef SecretReference `json:"secretRef,omitzero"`

	// maxConnections of each issuer, beside one that listens.
	// +optional
	// +kubebuilder:default=8
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxConnections int32 `json:"maxConnections,omitempty"`

	// maxSessions is how many sessions of this policy there may be at one time, about; a
	// login beyond it is refused with the reason store_full. Without it there is no limit.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000000
	MaxSessions int32 `json:"maxSessions,omitempty"`
}
