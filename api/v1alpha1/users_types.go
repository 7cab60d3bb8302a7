// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Users is exactly one source of users.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
type Users struct {
	// secret holds one user per key.
	// +optional
	Secret *SecretUsers `json:"secret,omitempty"`

	// sql asks a PostgreSQL, MySQL or MariaDB database.
	// +optional
	SQL *SQLUsers `json:"sql,omitempty"`

	// http asks a service of yours.
	// +optional
	HTTP *HTTPUsers `json:"http,omitempty"`
}

// SecretReference names a Secret of the same namespace, which must grant reading it
// to the issuer; a condition holds the lines to do so.
type SecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`
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

// SQLDriver is the kind of a database of users.
//
// +kubebuilder:validation:Enum=postgres;mysql
type SQLDriver string

// The drivers.
const (
	// SQLDriverPostgres is PostgreSQL.
	SQLDriverPostgres SQLDriver = "postgres"
	// SQLDriverMySQL is MySQL and MariaDB.
	SQLDriverMySQL SQLDriver = "mysql"
)

// SQLUsers are rows of a database, found by two queries. A row's columns are the
// user's attributes. A column "disabled" that is true shuts a user out.
type SQLUsers struct {
	// driver is postgres, or mysql for MySQL and MariaDB.
	// +required
	Driver SQLDriver `json:"driver,omitempty"`

	// secretRef names the Secret with the key dsn, where the database is and who we are
	// there, and optionally ca.crt, the CA of the server's certificate.
	// +required
	SecretRef SecretReference `json:"secretRef,omitzero"`

	// authenticate finds the user of a login.
	// +required
	Authenticate SQLAuthenticate `json:"authenticate,omitzero"`

	// lookup finds a user again at every refresh. No row ends the session.
	// +required
	Lookup SQLLookup `json:"lookup,omitzero"`

	// subjectColumn is the column of both queries that becomes the "sub" of tokens.
	// +optional
	// +kubebuilder:default=id
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self != 'disabled'",message="the column disabled has a meaning of its own: name the column that identifies the user"
	SubjectColumn string `json:"subjectColumn,omitempty"`

	// maxConnections of each issuer to the database.
	// +optional
	// +kubebuilder:default=8
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxConnections int32 `json:"maxConnections,omitempty"`
}

// SQLAuthenticate is the query of a login.
//
// +kubebuilder:validation:XValidation:rule="!has(self.password) || !(self.password.field in self.parameters)",fieldPath=".password.field",message="a password is verified by the issuer and never sent to the database: remove the field from parameters, or name another one"
type SQLAuthenticate struct {
	// query is one SELECT with placeholders, $1, $2 … for postgres and ? for mysql. It
	// returns one row, or none for no user. Without password it must compare every parameter.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Query string `json:"query,omitempty"`

	// parameters are the fields of a login that the placeholders stand for, in their
	// order; id is one of them, and a field may occur more than once.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:XValidation:rule="'id' in self",message="every login presents id: add id to parameters, and use it in the query"
	Parameters []string `json:"parameters,omitempty"`

	// password is a field of the login that is verified against a hash in the row. Leave
	// it out where the query compares everything.
	// +optional
	Password *SQLPassword `json:"password,omitempty"`
}

// SQLPassword is a field of a login and the column with its hash.
type SQLPassword struct {
	// column with an argon2id or bcrypt hash. It is no attribute.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self != 'disabled'",message="the column disabled has a meaning of its own: name the column with the hash"
	Column string `json:"column,omitempty"`

	// field of the login.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_.-]*$`
	Field string `json:"field,omitempty"`
}

// SQLLookup is the query of a refresh.
type SQLLookup struct {
	// query is one SELECT with one placeholder, for the subject.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Query string `json:"query,omitempty"`
}

// HTTPUsers is a service that is asked by POST with JSON.
type HTTPUsers struct {
	// url of the service, https. It is asked by POST; no redirects are followed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() == 'https' && url(self).getHost() != '' && !self.contains('#') && !self.contains('@')",message="url must be an https URL without user, password or fragment, because passwords go there: write for example https://users.shop.svc/tokenward, and give a token in the Secret"
	URL string `json:"url,omitempty"`

	// secretRef names the Secret with the keys token, presented as a bearer token, and
	// ca.crt, the CA of the server's certificate. Both keys are optional, and so is the Secret.
	// +optional
	SecretRef *SecretReference `json:"secretRef,omitempty"`

	// fields are what a login presents beside "id". They are sent as they come.
	// +optional
	// +kubebuilder:default={password}
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:XValidation:rule="!('id' in self)",message="id always is presented: remove it, and name at least one field such as password or phone"
	Fields []string `json:"fields,omitempty"`
}
