// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/postgres"
	"github.com/tokenward/tokenward/internal/session/redis"
	"github.com/tokenward/tokenward/internal/testservers"
)

func storeSecret(spec *api.TokenPolicySpec) string {
	switch s := spec.Store; {
	case s.Postgres != nil:
		return s.Postgres.SecretRef.Name
	case s.Redis != nil && s.Redis.SecretRef != nil:
		return s.Redis.SecretRef.Name
	}
	return ""
}

// keeps checks that a store keeps a session.
func keeps(t *testing.T, store session.Store) {
	t.Helper()
	now := time.Now().Truncate(time.Second)
	made := session.Session{
		ID: session.NewID(), Policy: policyID, Subject: "alice", Generation: 1, Current: session.Issued{ID: "a-token", IssuedAt: now, ExpiresAt: now.Add(time.Minute)},
		CreatedAt: now, LastRefreshAt: now, IdleUntil: now.Add(time.Hour), ExpiresAt: now.Add(time.Hour), TokensUntil: now.Add(time.Minute),
	}
	if err := store.Create(t.Context(), made); err != nil {
		t.Fatalf("a login: %v", err)
	}
	if found, err := store.Load(t.Context(), made.ID); err != nil || found.Subject != "alice" {
		t.Errorf("the session is %+v, %v", found, err)
	}
}

const policyID session.PolicyID = "a-policy"

// TestThePageOfRedisLeadsToAStoreThatWorks starts a server with the page's configuration,
// and opens the store of its policy as its user.
func TestThePageOfRedisLeadsToAStoreThatWorks(t *testing.T) {
	t.Parallel()
	const name = "docs/stores/redis.md"
	examples := blocks(t, name, "conf")
	if len(examples) != 1 {
		t.Fatalf("%d examples of a configuration, want 1", len(examples))
	}
	// Where it listens and the files of its certificate are the test's own.
	own := map[string]bool{"port": true, "tls-port": true, "tls-cert-file": true, "tls-key-file": true, "tls-ca-cert-file": true}
	var lines []string
	for line := range strings.Lines(examples[0].text) {
		// What is commented out must be configuration too.
		line = strings.TrimSpace(strings.TrimPrefix(line, "# min-"))
		if word, _, _ := strings.Cut(line, " "); word != "" && word != "#" && !own[word] {
			lines = append(lines, line)
		} else {
			delete(own, word)
		}
	}
	for i, line := range lines {
		if strings.HasPrefix(line, "replicas-") {
			lines[i] = "min-" + strings.Replace(line, "to-write 1", "to-write 0", 1) // there is none here
		}
	}
	if len(own) > 0 {
		t.Errorf("the page does not set %v", own)
	}
	server := testservers.Redis(t, testservers.RedisOptions{TLS: true, Config: lines})

	p := follow(t, name, server.CA)
	p.grantsWhatIsRead(t, "tokenward-store-", storeSecret)
	spec := p.policies[0].Spec.Store.Redis
	_, port, err := net.SplitHostPort(server.TLSAddr)
	if err != nil {
		t.Fatal(err)
	}
	options := redis.Options{
		Policy: policyID, Mode: redis.Mode(spec.Mode), MasterName: spec.MasterName, Database: int(spec.Database), Prefix: spec.KeyPrefix,
		PoolSize: int(spec.MaxConnections), Dial: local().DialContext, Timeout: 20 * time.Second,
	}
	for _, address := range spec.Addresses {
		options.Addresses = append(options.Addresses, moved(t, []byte(address), map[string]string{"redis.shop.svc:6379": "localhost:" + port}))
	}
	if err := options.UseSecret(p.secrets[spec.SecretRef.Name], spec.TLS == api.TLSVerify); err != nil {
		t.Fatal(err)
	}
	store, err := redis.New(options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	if err := store.Check(t.Context()); err != nil {
		t.Fatalf("the condition would say: %v", err)
	}
	keeps(t, store)
}

// TestThePageOfPostgreSQLLeadsToAStoreThatWorks makes its role and database, and then
// only a schema in one of others.
func TestThePageOfPostgreSQLLeadsToAStoreThatWorks(t *testing.T) {
	t.Parallel()
	const name = "docs/stores/postgres.md"
	server := testservers.Postgres(t, testservers.PostgresTLS())
	p := follow(t, name, server.CA)
	p.grantsWhatIsRead(t, "tokenward-store-", storeSecret)
	for _, statement := range p.statements(t, "a database of its own") {
		server.Exec(t, "postgres", statement)
	}
	server.Exec(t, "postgres", "CREATE DATABASE shared")
	for _, statement := range p.statements(t, "a schema of its own") {
		server.Exec(t, "shared", statement)
	}
	spec := p.policies[0].Spec.Store.Postgres
	data := p.secrets[spec.SecretRef.Name]
	address := net.JoinHostPort(server.Host, strconv.Itoa(server.Port))
	for _, database := range []string{"tokenward", "shared"} {
		t.Run(database, func(t *testing.T) {
			opened, err := postgres.Open(postgres.Config{
				URL: postgres.Secret(moved(t, data["url"], map[string]string{"db.shop.svc:5432/tokenward": address + "/" + database})),
				CA:  data["ca.crt"], MaxConns: spec.MaxConnections, Dial: local().DialContext, Timeout: 20 * time.Second,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = opened.Close() }()
			if err := opened.Check(t.Context()); err != nil {
				t.Fatalf("the condition would say: %v", err)
			}
			store := opened.Store(policyID, postgres.StoreOptions{MaxSessions: int(spec.MaxSessions)})
			defer func() { _ = store.Close() }()
			keeps(t, store)
		})
	}
}

// TestBothPagesOfPostgreSQLCanBeFollowedOnOneServer makes what the page of users says
// after what the page of the store says: the accounts must not be one, because that of
// users may only read.
func TestBothPagesOfPostgreSQLCanBeFollowedOnOneServer(t *testing.T) {
	t.Parallel()
	const name = "docs/stores/postgres.md"
	server := testservers.Postgres(t, testservers.PostgresTLS())
	for _, statement := range (&page{name: name}).statements(t, "a database of its own") {
		server.Exec(t, "postgres", statement)
	}
	server.Exec(t, "postgres", "CREATE DATABASE shop")
	for _, statement := range (&page{name: "docs/users/sql.md"}).statements(t, "PostgreSQL") {
		server.Exec(t, "shop", statement)
	}
	p := follow(t, name, server.CA)
	data := p.secrets[p.policies[0].Spec.Store.Postgres.SecretRef.Name]
	opened, err := postgres.Open(postgres.Config{
		URL: postgres.Secret(moved(t, data["url"], map[string]string{"db.shop.svc:5432": net.JoinHostPort(server.Host, strconv.Itoa(server.Port))})),
		CA:  data["ca.crt"], Dial: local().DialContext, Timeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	if err := opened.Check(t.Context()); err != nil {
		t.Fatalf("the condition would say: %v", err)
	}
	store := opened.Store(policyID, postgres.StoreOptions{})
	defer func() { _ = store.Close() }()
	keeps(t, store)
}
