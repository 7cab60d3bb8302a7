// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/internal/users/secret"
	"github.com/tokenward/tokenward/internal/users/sql"
)

func usersSecret(spec *api.TokenPolicySpec) string {
	switch u := spec.Users; {
	case u.Secret != nil:
		return u.Secret.Name
	case u.SQL != nil:
		return u.SQL.SecretRef.Name
	case u.HTTP != nil && u.HTTP.SecretRef != nil:
		return u.HTTP.SecretRef.Name
	}
	return ""
}

// local lets sources reach the servers of tests, which are on this machine.
func local() outbound.Guard {
	return outbound.Guard{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
}

// fixed is a Secret.
type fixed map[string][]byte

func (f fixed) ReadSecret(context.Context) (map[string][]byte, string, error) { return f, "1", nil }

func hasher() *password.Pool { return password.NewPool(0, 0, nil) }

// letsIn checks that a source lets the user of a page's login in, with the attributes
// that the policy's claims name, and nobody with any other value of any field.
func letsIn(t *testing.T, source users.Source, policy *api.TokenPolicy, login map[string]string) {
	t.Helper()
	user, err := source.Authenticate(t.Context(), login)
	if err != nil || user.Subject != login[users.IDField] {
		t.Fatalf("the page's user logs in as %+v, %v", user, err)
	}
	for _, claim := range policy.Spec.AccessToken.Claims {
		if user.Attributes[claim.Attribute] == nil {
			t.Errorf("the user has no attribute %q for the claim %q", claim.Attribute, claim.Claim)
		}
	}
	for field := range login {
		wrong := maps.Clone(login)
		wrong[field] += "x"
		if _, err := source.Authenticate(t.Context(), wrong); !errors.Is(err, users.ErrNoUser) {
			t.Errorf("with another %s: %v", field, err)
		}
	}
	if user, err := source.Lookup(t.Context(), login[users.IDField]); err != nil || user.Subject != login[users.IDField] {
		t.Errorf("at a refresh the user is %+v, %v", user, err)
	}
	if _, err := source.Lookup(t.Context(), "nobody"); !errors.Is(err, users.ErrNoUser) {
		t.Errorf("at a refresh of nobody: %v", err)
	}
}

// eachLogin calls try for every policy of a page, each of which must have a login.
func (p *page) eachLogin(t *testing.T, try func(t *testing.T, policy *api.TokenPolicy, login map[string]string)) {
	t.Helper()
	p.grantsWhatIsRead(t, "tokenward-users-", usersSecret)
	for i, policy := range p.policies {
		t.Run(strconv.Itoa(i)+" "+policy.Name, func(t *testing.T) {
			if p.logins[i] == nil {
				t.Fatal("the page shows no login")
			}
			try(t, policy, p.logins[i])
		})
	}
}

func TestThePageOfSecretsLeadsToUsersWhoCanLogIn(t *testing.T) {
	p := follow(t, "docs/users/secret.md", nil)
	p.eachLogin(t, func(t *testing.T, policy *api.TokenPolicy, login map[string]string) {
		t.Helper()
		source := secret.New(secret.Options{
			Reader: fixed(p.secrets[policy.Spec.Users.Secret.Name]), Hasher: hasher(), Fields: policy.Spec.Users.Secret.Fields, Now: time.Now,
		})
		if report, err := source.Check(t.Context()); err != nil || len(report.Broken) > 0 {
			t.Errorf("the page's users are %+v, %v", report, err)
		}
		letsIn(t, source, policy, login)
		if _, err := source.Lookup(t.Context(), "bob"); !errors.Is(err, users.ErrDisabled) {
			t.Errorf("the page's disabled user: %v", err)
		}
	})
}

// TestThePageOfDatabasesLeadsToUsersWhoCanLogIn makes its tables and accounts in real
// databases and asks them with its queries, as its account.
func TestThePageOfDatabasesLeadsToUsersWhoCanLogIn(t *testing.T) {
	t.Parallel()
	const name = "docs/users/sql.md"
	servers := map[api.SQLDriver]func(t *testing.T) (ca []byte, addresses map[string]string){
		api.SQLDriverPostgres: func(t *testing.T) ([]byte, map[string]string) {
			t.Helper()
			server := testservers.Postgres(t, testservers.PostgresTLS())
			server.Exec(t, "postgres", "CREATE DATABASE shop")
			for _, statement := range (&page{name: name}).statements(t, "PostgreSQL") {
				server.Exec(t, "shop", statement)
			}
			return server.CA, map[string]string{"db.shop.svc:5432": net.JoinHostPort(server.Host, strconv.Itoa(server.Port))}
		},
		api.SQLDriverMySQL: func(t *testing.T) ([]byte, map[string]string) {
			t.Helper()
			server := testservers.MariaDB(t, testservers.MariaDBTLS())
			server.Exec(t, "", "CREATE DATABASE shop")
			server.Exec(t, "shop", (&page{name: name}).statements(t, "MySQL and MariaDB")...)
			return server.CA, map[string]string{"db.shop.svc:3306": net.JoinHostPort(server.Host, strconv.Itoa(server.Port))}
		},
	}
	for driver, start := range servers {
		t.Run(string(driver), func(t *testing.T) {
			t.Parallel()
			ca, addresses := start(t)
			tried := 0
			p := follow(t, name, ca)
			p.eachLogin(t, func(t *testing.T, policy *api.TokenPolicy, login map[string]string) {
				t.Helper()
				spec := policy.Spec.Users.SQL
				if spec.Driver != driver {
					return
				}
				tried++
				data := p.secrets[spec.SecretRef.Name]
				options := sql.Options{
					Driver: sql.Driver(spec.Driver), DSN: users.NewCredential(moved(t, data["dsn"], addresses)), CA: data["ca.crt"],
					Authenticate: sql.Authenticate{Query: spec.Authenticate.Query, Parameters: spec.Authenticate.Parameters},
					Lookup:       sql.Lookup{Query: spec.Lookup.Query}, Subject: spec.SubjectColumn, MaxConnections: int(spec.MaxConnections),
					Hasher: hasher(), Dial: local().DialContext,
					QueryTimeout: 20 * time.Second, // the machine of a test may be busy
				}
				if pass := spec.Authenticate.Password; pass != nil {
					options.Authenticate.Password = &sql.Password{Column: pass.Column, Field: pass.Field}
				}
				source, err := sql.New(options)
				if err != nil {
					t.Fatal(err)
				}
				defer source.Close()
				if err := source.Check(t.Context()); err != nil {
					t.Fatalf("the condition would say: %v", err)
				}
				letsIn(t, source, policy, login)
			})
			if tried == 0 {
				t.Errorf("no policy of the page has the driver %s", driver)
			}
		})
	}
}
