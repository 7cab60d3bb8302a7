// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/configmap"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/session/postgres"
	"github.com/tokenward/tokenward/internal/session/redis"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/internal/users/secret"
	"github.com/tokenward/tokenward/internal/users/sql"
)

const (
	operator = "tokenward-system"
	tenant   = "shop"

	// storeTimeout is longer than the stores' own, because the machine of a test may be
	// busy with others. No figure needs a timeout.
	storeTimeout = 30 * time.Second
)

// access is how a process reaches a store and the users; it can be handed to another
// process, unless the store is memory.
type access struct {
	Kind string
	// Redis is host:port, Postgres a URL.
	Redis, Postgres string
	Cluster         *cluster
	Sealing         map[string][]byte
	Users           people
	// WritesPerSecond and MaxSessions of a configMap store; the defaults when 0.
	WritesPerSecond float64
	MaxSessions     int

	memory *memory.Backing
	// wrap is put around requests to the API server.
	wrap func(http.RoundTripper) http.RoundTripper
}

// cluster is an administrator's access to the API server.
type cluster struct {
	Host                 string
	CA, Certificate, Key []byte
}

func (c *cluster) config() *rest.Config {
	return &rest.Config{Host: c.Host, TLSClientConfig: rest.TLSClientConfig{CAData: c.CA, CertData: c.Certificate, KeyData: c.Key}, QPS: -1}
}

// people is where the users are: in one of the three.
type people struct{ Secret, Postgres, MySQL string }

// open opens one more instance of the store, with connections of its own, as a process
// of its own would.
func (a access) open(policy session.PolicyID, now func() time.Time) (session.Store, func(), error) {
	switch a.Kind {
	case "memory":
		store := memory.New(policy, memory.Options{Backing: a.memory, Now: now})
		return store, func() { _ = store.Close() }, nil
	case "redis":
		store, err := redis.New(redis.Options{Policy: policy, Addresses: []string{a.Redis}, Timeout: storeTimeout, Now: now})
		if err != nil {
			return nil, nil, err
		}
		return store, func() { _ = store.Close() }, nil
	case "postgres":
		database, err := postgres.Open(postgres.Config{URL: postgres.Secret(a.Postgres), Timeout: storeTimeout, SweepInterval: -1})
		if err != nil {
			return nil, nil, err
		}
		store := database.Store(policy, postgres.StoreOptions{Now: now})
		return store, func() { _ = store.Close(); _ = database.Close() }, nil
	case "configMap":
		return a.openConfigMap(policy, now)
	}
	return nil, nil, fmt.Errorf("there is no store %q", a.Kind)
}

func (a access) openConfigMap(policy session.PolicyID, now func() time.Time) (session.Store, func(), error) {
	config := a.Cluster.config()
	// Clients with equal configurations share connections, unless each dials for itself.
	dialer := &net.Dialer{Timeout: storeTimeout}
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}
	if a.wrap != nil {
		config.Wrap(a.wrap)
	}
	web, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, nil, err
	}
	requests, errClient := client.NewWithWatch(config, client.Options{HTTPClient: web})
	sealer, errSealer := configmap.NewSealer(a.Sealing)
	if err := errors.Join(errClient, errSealer); err != nil {
		return nil, nil, err
	}
	store, err := configmap.New(configmap.Config{
		Client: requests, Namespace: operator, Sealer: sealer, Now: now,
		Policy: policy, OwnerNamespace: tenant, OwnerName: "web", Shards: 16, MaxSessions: cmp.Or(a.MaxSessions, 10000), WritesPerSecond: a.WritesPerSecond,
	})
	if err != nil {
		return nil, nil, err
	}
	return store, func() { _ = store.Close(); web.CloseIdleConnections() }, nil
}

// source opens the users: a login presents id and phone.
func (a access) source(now func() time.Time) (users.Source, func(), error) {
	hasher := password.NewPool(0, 0, nil)
	options := sql.Options{
		Driver: sql.Postgres, DSN: users.NewCredential(a.Users.Postgres),
		Hasher: hasher, Dial: (&net.Dialer{}).DialContext, QueryTimeout: storeTimeout, Now: now,
		Authenticate: sql.Authenticate{
			Query:      "SELECT id, phone, role, disabled FROM users WHERE id = $1 AND phone = $2",
			Parameters: []string{users.IDField, "phone"},
		},
		Lookup: sql.Lookup{Query: "SELECT id, role, disabled FROM users WHERE id = $1"},
	}
	switch {
	case a.Users.Secret != "":
		reader, err := a.Cluster.secret(a.Users.Secret)
		return secret.New(secret.Options{Reader: reader, Hasher: hasher, Fields: []string{"phone"}, Now: now}), func() {}, err
	case a.Users.MySQL != "":
		options.Driver, options.DSN = sql.MySQL, users.NewCredential(a.Users.MySQL)
		options.Authenticate.Query = "SELECT id, phone, role, disabled FROM users WHERE id = ? AND phone = ?"
		options.Lookup.Query = "SELECT id, role, disabled FROM users WHERE id = ?"
	}
	source, err := sql.New(options)
	if err != nil {
		return nil, nil, err
	}
	return source, source.Close, nil
}

// tenantSecret reads a Secret of the API server each time it is asked.
type tenantSecret struct {
	client client.Client
	name   string
}

func (c *cluster) secret(name string) (tenantSecret, error) {
	requests, err := configmap.NewClient(c.config())
	return tenantSecret{client: requests, name: name}, err
}

func (s tenantSecret) ReadSecret(ctx context.Context) (data map[string][]byte, version string, err error) {
	object := &corev1.Secret{}
	err = s.client.Get(ctx, client.ObjectKey{Namespace: tenant, Name: s.name}, object)
	return object.Data, object.ResourceVersion, err
}
