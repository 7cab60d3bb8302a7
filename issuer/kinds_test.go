// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

// servers are shared by the tests of one kind.
type servers struct {
	postgres *postgresServer
	redis    *testservers.RedisServer
	service  *userService
}

func startServers(t *testing.T) *servers {
	t.Helper()
	s := &servers{}
	var starting sync.WaitGroup
	starting.Go(func() { s.postgres = startPostgres(t) })
	s.redis = testservers.Redis(t, testservers.RedisOptions{TLS: true, Config: []string{"requirepass " + serverPassword}})
	s.service = startUserService(t)
	starting.Wait()
	return s
}

func (s *servers) redisStore(secret string) *api.RedisStore {
	return &api.RedisStore{Addresses: []string{s.redis.TLSAddr}, SecretRef: &api.SecretReference{Name: secret}}
}

func (s *servers) redisSecret() map[string]string {
	return map[string]string{"password": serverPassword, "ca.crt": string(s.redis.CA)}
}

func (s *servers) httpUsers(path, secret string) *api.HTTPUsers {
	return &api.HTTPUsers{URL: s.service.URL + path, SecretRef: &api.SecretReference{Name: secret}}
}

func (s *servers) httpSecret() map[string]string {
	return map[string]string{"token": serverPassword, "ca.crt": s.service.ca()}
}

// inPostgres is a tenant with users and sessions in PostgreSQL.
func (s *servers) inPostgres(t *testing.T, clock *skipClock, change ...func(*api.TokenPolicySpec)) *tenant {
	t.Helper()
	n := newTenant(t, append([]func(*api.TokenPolicySpec){func(spec *api.TokenPolicySpec) {
		spec.Users = api.Users{SQL: sqlUsers(api.SQLDriverPostgres, "users")}
		spec.Store = api.Store{Postgres: &api.PostgresStore{SecretRef: api.SecretReference{Name: "sessions"}}}
	}}, change...)...)
	n.on(clock)
	n.withSecret("users", s.postgres.secret("dsn", serverPassword, s.postgres.users))
	n.withSecret("sessions", s.postgres.secret("url", serverPassword, s.postgres.empty(t)))
	return n
}

// inRedis is a tenant with users behind a service and sessions in Redis.
func (s *servers) inRedis(t *testing.T, clock *skipClock) *tenant {
	t.Helper()
	n := newTenant(t, func(spec *api.TokenPolicySpec) {
		spec.Users = api.Users{HTTP: s.httpUsers("/fine", "users")}
		spec.Store = api.Store{Redis: s.redisStore("sessions")}
	})
	n.on(clock)
	n.withSecret("users", s.httpSecret())
	n.withSecret("sessions", s.redisSecret())
	return n
}

// TestEveryKindOfUsersAndSessions walks the whole way of a session.
func TestEveryKindOfUsersAndSessions(t *testing.T) {
	s := startServers(t)
	maria := testservers.MariaDB(t, testservers.MariaDBTLS())
	users := maria.Database(t)
	maria.Exec(t, users, table("boolean")...)
	clock := &skipClock{}
	one, two := startIssuer(t, clock, allowThisMachine), startIssuer(t, clock, allowThisMachine)

	inPostgres, inRedis := s.inPostgres(t, clock), s.inRedis(t, clock)
	// Nothing is granted to this one; the conditions say what to paste.
	inMaria := newTenant(t, func(spec *api.TokenPolicySpec) {
		spec.Users = api.Users{SQL: sqlUsers(api.SQLDriverMySQL, "users")}
		spec.Store = api.Store{Redis: s.redisStore("sessions")}
	})
	inMaria.on(clock)
	create(t,
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: inMaria.namespace, Name: "users"},
			StringData: map[string]string{"dsn": maria.DSN(users), "ca.crt": string(maria.CA)},
		},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: inMaria.namespace, Name: "sessions"}, StringData: s.redisSecret()})
	inMaria.serving(one)
	wantOutage(t, inMaria.login(one, "alice", rightPassword))
	inMaria.pasted(inMaria.await(api.ConditionUsersReady, api.ReasonSecretAccessDenied).Message)
	inMaria.pasted(inMaria.await(api.ConditionStoreReady, api.ReasonSecretAccessDenied).Message)

	for name, n := range map[string]*tenant{"PostgreSQL": inPostgres, "Redis and HTTP": inRedis, "MariaDB": inMaria} {
		t.Run(name, func(t *testing.T) {
			n.serving(one, two)
			n.ready()
			// The condition is that of whichever issuer looked first; the grant may be new to the other.
			eventually(t, "both let her in", func() (bool, string) {
				a, b := n.login(one, "alice", rightPassword), n.login(two, "alice", rightPassword)
				return a.status == 200 && b.status == 200, a.String() + b.String()
			})
			want(t, n.login(one, "alice", wrongPassword), 403, token.CredentialsInvalid)
			want(t, n.login(two, "bob", rightPassword), 403, token.CredentialsInvalid)
			want(t, n.login(one, "nobody", rightPassword), 403, token.CredentialsInvalid)
			first := n.login(one, "alice", rightPassword)
			claims := n.verify(first.token)
			if claims.Subject != "alice" || claims.Extra["role"] != "admin" {
				t.Errorf("claims %+v", claims)
			}
			events := n.listen(two)
			second := n.exchange(two, protocol.CallRefresh, first.token)
			if got := n.verify(second.token); got.Generation != 2 || got.SessionID != claims.SessionID {
				t.Errorf("claims %+v", got)
			}
			if again := n.exchange(one, protocol.CallRefresh, first.token); again.token != second.token {
				t.Errorf("a repeated refresh at another issuer: %s", again)
			}
			if got := n.exchange(one, protocol.CallLogout, second.token); got.status != 204 {
				t.Errorf("logout: %s", got)
			}
			n.hear(events, claims.SessionID)
			want(t, n.exchange(two, protocol.CallRefresh, second.token), 403, token.SessionRevoked)
		})
	}
	if got := metric(t, one, "tokenward_issuer_store_connections", map[string]string{"namespace": inPostgres.namespace, "policy": "web"}); got < 1 {
		t.Errorf("%v connections", got)
	}
	if got := metric(t, one, "tokenward_issuer_store_connections_limit", map[string]string{"namespace": inPostgres.namespace, "policy": "web"}); got != 8 {
		t.Errorf("at most %v connections", got)
	}
	wantNoSecrets(t, seen(t, one, inPostgres, inRedis, inMaria))
	wantNoSecrets(t, seen(t, two))
}

// load refreshes a session of its own again and again, and tells every answer. It stops
// with the returned function.
func (n *tenant) load(i *instance, workers int, tell func(answer) bool) (rounds func() int64, stop func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	var working sync.WaitGroup
	var done atomic.Int64
	for range workers {
		raw := n.login(i, "alice", rightPassword).token
		working.Go(func() {
			for ctx.Err() == nil {
				got, err := n.try(i, n.podToken, http.MethodPost, protocol.Path(n.namespace, "web", protocol.CallRefresh), `{"access_token": "`+raw+`"}`)
				if err != nil {
					n.t.Errorf("a refresh: %v", err)
					return
				}
				if !tell(got) {
					return
				}
				if got.status == http.StatusOK {
					raw = got.token
					done.Add(1)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); working.Wait() })
	n.t.Cleanup(stop)
	return done.Load, stop
}

// more waits until so many more refreshes were granted.
func more(t *testing.T, rounds func() int64, n int64) {
	t.Helper()
	until := rounds() + n
	eventually(t, "the load goes on", func() (bool, string) { return rounds() >= until, "" })
}

// TestAChangedPasswordFailsNoRefresh changes it at the server and in the Secret, in both
// orders, while refreshes run, and never a second time.
func TestAChangedPasswordFailsNoRefresh(t *testing.T) {
	s := startServers(t)
	clock := &skipClock{}
	i := startIssuer(t, clock, allowThisMachine)
	inPostgres, inRedis := s.inPostgres(t, clock), s.inRedis(t, clock)
	admin := s.redis.Client(t)
	do := func(t *testing.T, args ...any) {
		t.Helper()
		conn := admin.Conn()
		defer func() { _ = conn.Close() }()
		if err := conn.Auth(t.Context(), serverPassword).Err(); err != nil {
			t.Fatal(err)
		}
		if err := conn.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	do(t, "ACL", "SETUSER", "shop", "on", ">"+serverPassword, "~*", "&*", "+@all")
	inRedis.putSecret("sessions", map[string]string{"username": "shop"})
	for name, test := range map[string]struct {
		n *tenant
		// at the server; the former password is good for nobody any more.
		change func(t *testing.T, to string)
		secret func(to string)
		// hangUp ends the connections that are still authenticated with the former one.
		hangUp func(t *testing.T)
	}{
		"PostgreSQL": {
			inPostgres,
			func(t *testing.T, to string) {
				t.Helper()
				s.postgres.Exec(t, "postgres", "ALTER ROLE tokenward PASSWORD '"+to+"'")
			},
			func(to string) {
				inPostgres.putSecret("users", map[string]string{"dsn": s.postgres.URLFor("tokenward", to, s.postgres.users)})
				url := inPostgres.read("sessions", "url")
				inPostgres.putSecret("sessions", map[string]string{"url": strings.Replace(url, passwordOf(url), to, 1)})
			},
			func(t *testing.T) {
				t.Helper()
				s.postgres.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tokenward'")
			},
		},
		"Redis": {
			inRedis,
			func(t *testing.T, to string) {
				t.Helper()
				do(t, "ACL", "SETUSER", "shop", "resetpass", ">"+to)
			},
			func(to string) { inRedis.putSecret("sessions", map[string]string{"password": to}) },
			func(t *testing.T) {
				t.Helper()
				do(t, "CLIENT", "KILL", "USER", "shop")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := test.n.in(t)
			n.serving(i)
			n.ready()
			events := n.listen(i)
			const workers = 8
			rounds, stop := n.load(i, workers, func(got answer) bool {
				if got.status != http.StatusOK {
					t.Errorf("a refresh failed: %s", got)
				}
				return got.status == http.StatusOK
			})
			more(t, rounds, 50)

			// The Secret first: the former password stays in use until the server has the new one.
			test.secret("c4n4ry-second")
			n.lookAgain()
			kept := n.await(api.ConditionStoreReady, api.ReasonCredentialsRefused)
			if !strings.Contains(kept.Message, "The former credentials stay in use.") {
				t.Errorf("condition %+v", kept)
			}
			more(t, rounds, 50)
			test.change(t, "c4n4ry-second")
			more(t, rounds, 50)
			n.lookAgain()
			n.ready()
			more(t, rounds, 50)
			// A stream on what was replaced has ended, for its sidecar to begin the next one.
			ended := time.After(patience)
			for open := true; open; {
				select {
				case _, open = <-events:
				case <-ended:
					t.Fatal("the stream goes on with what was replaced")
				}
			}
			stop()

			// The server first, and no look but those that refused calls ask for.
			test.change(t, "c4n4ry-third")
			test.secret("c4n4ry-third")
			test.hangUp(t)
			last := n.login(i, "alice", rightPassword)
			if last.status != http.StatusOK {
				t.Fatalf("a login after it: %s", last)
			}
			n.lookAgain()
			n.ready()
			events = n.listen(i)
			sid := n.verify(last.token).SessionID
			if got := n.exchange(i, protocol.CallLogout, last.token); got.status != http.StatusNoContent {
				t.Errorf("logout: %s", got)
			}
			n.hear(events, sid)
			wantNoSecrets(t, seen(t, i, n))
		})
	}
}

// read a key of a Secret.
func (n *tenant) read(name, key string) string {
	n.t.Helper()
	var secret corev1.Secret
	if err := shared.admin.Get(n.t.Context(), clientKey(n.namespace, name), &secret); err != nil {
		n.t.Fatal(err)
	}
	return string(secret.Data[key])
}

// passwordOf postgres://tokenward:password@host.
func passwordOf(url string) string {
	_, rest, _ := strings.Cut(url, "tokenward:")
	password, _, _ := strings.Cut(rest, "@")
	return password
}

func TestAWithdrawnGrantIsAnOutageAndNoLogout(t *testing.T) {
	s := startServers(t)
	clock := &skipClock{}
	i := startIssuer(t, clock, allowThisMachine)
	n := s.inPostgres(t, clock)
	n.serving(i)
	n.ready()
	alice := n.login(i, "alice", rightPassword)
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: "read-sessions"}}
	if err := shared.admin.Get(t.Context(), clientKey(n.namespace, binding.Name), binding); err != nil {
		t.Fatal(err)
	}
	users := &corev1.Secret{}
	if err := shared.admin.Get(t.Context(), clientKey(n.namespace, "users"), users); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{shared.admin.Delete(t.Context(), binding), shared.admin.Delete(t.Context(), users)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// The API server's authorizer takes a moment to notice.
	eventually(t, "it is reported", func() (bool, string) { return n.looked(api.ConditionStoreReady, api.ReasonSecretAccessDenied) })
	n.await(api.ConditionUsersReady, api.ReasonSecretNotFound)
	wantOutage(t, n.login(i, "alice", rightPassword))
	wantOutage(t, n.exchange(i, protocol.CallRefresh, alice.token))
	binding.ResourceVersion, users.ResourceVersion = "", ""
	create(t, binding, users)
	eventually(t, "she goes on", func() (bool, string) {
		got := n.exchange(i, protocol.CallRefresh, alice.token)
		return got.status == http.StatusOK, got.String()
	})
}
