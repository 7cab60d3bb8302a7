// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
)

// fault is one thing that is wrong with the users or the sessions of a policy.
type fault struct {
	// secret is what the fault's own Secret holds, if it has one.
	secret map[string]string
	change func(spec *api.TokenPolicySpec, secret string)
	kind   string
	reason string
	says   string
	// loginsOnly: a refresh does not meet it.
	loginsOnly bool
}

// TestAFaultOfAServerIsAConditionAndAnOutage: 503 with Retry-After, nobody is logged out,
// nobody let in, and the condition says which fault it is.
func TestAFaultOfAServerIsAConditionAndAnOutage(t *testing.T) {
	s := startServers(t)
	p, foreign := s.postgres, startUserService(t) // whose CA signed none of the others
	clock := &skipClock{}
	i := startIssuer(t, clock, allowThisMachine)
	users := func(change func(*api.SQLUsers)) func(*api.TokenPolicySpec, string) {
		return func(spec *api.TokenPolicySpec, secret string) {
			if secret != "" {
				spec.Users.SQL.SecretRef.Name = secret
			}
			change(spec.Users.SQL)
		}
	}
	usersSecret := users(func(*api.SQLUsers) {})
	store := func(spec *api.TokenPolicySpec, secret string) { spec.Store.Postgres.SecretRef.Name = secret }
	service := func(path string) func(*api.TokenPolicySpec, string) {
		return func(spec *api.TokenPolicySpec, _ string) { spec.Users.HTTP.URL = s.service.URL + path }
	}
	serviceSecret := func(spec *api.TokenPolicySpec, secret string) {
		spec.Users.HTTP.SecretRef.Name = secret
	}
	redis := func(change func(*api.RedisStore)) func(*api.TokenPolicySpec, string) {
		return func(spec *api.TokenPolicySpec, secret string) {
			if secret != "" {
				spec.Store.Redis.SecretRef.Name = secret
			}
			change(spec.Store.Redis)
		}
	}
	redisSecret := redis(func(*api.RedisStore) {})
	at := func(key, url, address string) map[string]string {
		_, rest, _ := strings.Cut(url, "@")
		host, _, _ := strings.Cut(rest, "/")
		return map[string]string{key: strings.Replace(url, host, address, 1), "ca.crt": string(p.CA)}
	}
	away := nobody(t)
	url := p.URLFor("tokenward", serverPassword, p.users)
	const other = "127.0.0.2:5432" // allowThisMachine leaves it out
	const usersReady, storeReady = api.ConditionUsersReady, api.ConditionStoreReady

	inPostgres := map[string]fault{
		"users: no address":     {at("dsn", url, away), usersSecret, usersReady, api.ReasonUnreachable, "nothing answers", false},
		"users: loopback":       {at("dsn", url, other), usersSecret, usersReady, api.ReasonAddressRefused, "loopback", false},
		"users: metadata":       {at("dsn", url, "169.254.169.254:80"), usersSecret, usersReady, api.ReasonAddressRefused, "link-local", false},
		"users: wrong password": {p.secret("dsn", "c4n4ry-wrong", p.users), usersSecret, usersReady, api.ReasonCredentialsRefused, "password", false},
		"users: another CA":     {map[string]string{"dsn": url, "ca.crt": foreign.ca()}, usersSecret, usersReady, api.ReasonTLSNotTrusted, "ca.crt", false},
		"users: no DSN":         {map[string]string{"ca.crt": foreign.ca()}, usersSecret, usersReady, api.ReasonSecretInvalid, "dsn: is missing", false},
		"users: a mistyped key": {map[string]string{"dns": url}, usersSecret, usersReady, api.ReasonSecretInvalid, `the key "dns"; known are dsn`, false},
		"users: nonsense":       {map[string]string{"dsn": "c4n4ry://@@"}, usersSecret, usersReady, api.ReasonSecretInvalid, "dsn: ", false},
		"users: no table":       {p.secret("dsn", serverPassword, p.empty(t)), usersSecret, usersReady, api.ReasonSchemaMismatch, "authenticate.query", false},
		"users: no column": {
			change: users(func(u *api.SQLUsers) { u.Authenticate.Password.Column = "pin" }),
			kind:   usersReady, reason: api.ReasonAnswerInvalid, says: "pin", loginsOnly: true,
		},
		"users: two rows":        {nil, users(func(u *api.SQLUsers) { u.Authenticate.Query += " OR id <> ''"; u.Lookup.Query += " OR id <> ''" }), usersReady, api.ReasonAnswerInvalid, "row", false},
		"sessions: no address":   {at("url", url, away), store, storeReady, api.ReasonUnreachable, "cannot be reached", false},
		"sessions: loopback":     {at("url", url, other), store, storeReady, api.ReasonAddressRefused, "loopback", false},
		"sessions: wrong":        {p.secret("url", "c4n4ry-wrong", p.users), store, storeReady, api.ReasonCredentialsRefused, "password", false},
		"sessions: another CA":   {map[string]string{"url": url, "ca.crt": foreign.ca()}, store, storeReady, api.ReasonTLSNotTrusted, "ca.crt", false},
		"sessions: no database":  {p.secret("url", serverPassword, "nowhere"), store, storeReady, api.ReasonDatabaseMissing, "database", false},
		"sessions: no right":     {p.secret("url", serverPassword, p.users), store, storeReady, api.ReasonPermissionDenied, "CREATE SCHEMA", false},
		"sessions: nonsense":     {map[string]string{"url": "c4n4ry://@@"}, store, storeReady, api.ReasonSecretInvalid, "url", false},
		"sessions: not verified": {map[string]string{"url": strings.Replace(url, "verify-full", "require", 1)}, store, storeReady, api.ReasonSecretInvalid, "sslmode", false},
	}
	inRedis := map[string]fault{
		"users: redirected":     {nil, service("/redirect"), usersReady, api.ReasonAnswerInvalid, "redirect", false},
		"users: slow":           {nil, service("/slow"), usersReady, api.ReasonTimeout, "in time", false},
		"users: HTML":           {nil, service("/html"), usersReady, api.ReasonAnswerInvalid, "application/json", false},
		"users: 10 MB":          {nil, service("/large"), usersReady, api.ReasonAnswerInvalid, "bytes", false},
		"users: nobody":         {nil, func(spec *api.TokenPolicySpec, _ string) { spec.Users.HTTP.URL = "https://" + away }, usersReady, api.ReasonUnreachable, "url: nothing answers", false},
		"users: loopback":       {nil, func(spec *api.TokenPolicySpec, _ string) { spec.Users.HTTP.URL = "https://127.0.0.2/" }, usersReady, api.ReasonAddressRefused, "loopback", false},
		"users: another CA":     {map[string]string{"token": serverPassword, "ca.crt": string(p.CA)}, serviceSecret, usersReady, api.ReasonTLSNotTrusted, "ca.crt", false},
		"users: a CA of sorts":  {map[string]string{"ca.crt": "c4n4ry"}, serviceSecret, usersReady, api.ReasonSecretInvalid, "ca.crt", false},
		"sessions: no address":  {nil, redis(func(r *api.RedisStore) { r.Addresses = []string{away} }), storeReady, api.ReasonUnreachable, "no server answers", false},
		"sessions: loopback":    {nil, redis(func(r *api.RedisStore) { r.Addresses = []string{"127.0.0.2:6379"} }), storeReady, api.ReasonAddressRefused, "loopback", false},
		"sessions: wrong":       {map[string]string{"password": "c4n4ry-wrong", "ca.crt": string(s.redis.CA)}, redisSecret, storeReady, api.ReasonCredentialsRefused, "password", false},
		"sessions: another CA":  {map[string]string{"password": serverPassword, "ca.crt": foreign.ca()}, redisSecret, storeReady, api.ReasonTLSNotTrusted, "ca.crt", false},
		"sessions: a typo":      {map[string]string{"pasword": serverPassword}, redisSecret, storeReady, api.ReasonSecretInvalid, "pasword", false},
		"sessions: no Cluster":  {nil, redis(func(r *api.RedisStore) { r.Mode = api.RedisCluster }), storeReady, api.ReasonWrongMode, "Single", false},
		"sessions: a bad port":  {nil, redis(func(r *api.RedisStore) { r.Addresses = []string{"redis.shop.svc:70000"} }), storeReady, api.ReasonSpecInvalid, "65535", false},
		"sessions: no password": {map[string]string{"username": "shop", "ca.crt": string(s.redis.CA)}, redisSecret, storeReady, api.ReasonSecretInvalid, "password", false},
	}
	for name, test := range map[string]struct {
		n      *tenant
		faults map[string]fault
	}{"PostgreSQL": {s.inPostgres(t, clock), inPostgres}, "HTTP and Redis": {s.inRedis(t, clock), inRedis}} {
		n := test.n
		n.serving(i)
		n.ready()
		good := *n.policy.Spec.DeepCopy()
		alice := n.login(i, "alice", rightPassword)
		for fault, f := range test.faults {
			t.Run(name+", "+fault, func(t *testing.T) {
				n := n.in(t)
				secret := ""
				if f.secret != nil {
					secret = "fault-" + strings.ToLower(strings.NewReplacer(" ", "-", ":", "").Replace(fault))
					n.withSecret(secret, f.secret)
				}
				n.change(func(spec *api.TokenPolicySpec) {
					good.DeepCopyInto(spec)
					f.change(spec, secret)
				})
				if f.says == "row" { // only a user's row shows it
					eventually(t, "it shows", func() (bool, string) {
						n.login(i, "alice", rightPassword)
						return n.looked(f.kind, f.reason)
					})
				}
				found := n.await(f.kind, f.reason)
				if !strings.Contains(found.Message, f.says) || !strings.Contains(found.Message, "spec.") || found.Status != "False" {
					t.Errorf("%s does not say %q", found.Message, f.says)
				}
				wantNoSecrets(t, map[string]string{"condition": found.Message})
				wantOutage(t, n.login(i, "alice", rightPassword))
				if got := n.login(i, "alice", wrongPassword); got.status == http.StatusOK {
					t.Errorf("somebody is let in: %s", got)
				}
				if !f.loginsOnly {
					wantOutage(t, n.exchange(i, protocol.CallRefresh, alice.token))
				}
			})
		}
		n.change(func(spec *api.TokenPolicySpec) { good.DeepCopyInto(spec) })
		n.ready()
		eventually(t, "she goes on", func() (bool, string) {
			got := n.exchange(i, protocol.CallRefresh, alice.token)
			if got.status == http.StatusForbidden {
				t.Fatalf("she was logged out: %s", got)
			}
			return got.status == http.StatusOK, got.String()
		})
	}
	t.Run("Redis begins to evict", func(t *testing.T) { evicts(t, s, i, clock) })
	t.Run("PostgreSQL restarts under load", func(t *testing.T) { restarts(t, s, i, clock) })
	wantNoSecrets(t, seen(t, i))
}

// in has failures of the tenant reported to a subtest.
func (n *tenant) in(t *testing.T) *tenant {
	t.Helper()
	here := *n
	here.t = t
	return &here
}

// evicts: sessions that are found go on; one that is not may have been dropped, and new
// ones may be.
func evicts(t *testing.T, s *servers, i *instance, clock *skipClock) {
	t.Helper()
	server := testservers.Redis(t, testservers.RedisOptions{})
	n := newTenant(t, func(spec *api.TokenPolicySpec) {
		spec.Users = api.Users{HTTP: s.httpUsers("/fine", "users")}
		spec.Store = api.Store{Redis: &api.RedisStore{Addresses: []string{server.Addr}, TLS: api.TLSDisable}}
	})
	n.on(clock)
	n.withSecret("users", s.httpSecret())
	n.serving(i)
	n.ready()
	kept, dropped := n.login(i, "alice", rightPassword), n.login(i, "alice", rightPassword)
	admin := server.Client(t)
	if err := admin.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	keys, err := admin.Keys(t.Context(), "*:s:"+n.verify(dropped.token).SessionID).Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	if err := admin.Del(t.Context(), keys...).Err(); err != nil {
		t.Fatal(err)
	}
	n.lookAgain()
	found := n.await(api.ConditionStoreReady, api.ReasonEvicts)
	if !strings.Contains(found.Message, "noeviction") {
		t.Errorf("condition %+v", found)
	}
	wantOutage(t, n.login(i, "alice", rightPassword))
	wantOutage(t, n.exchange(i, protocol.CallRefresh, dropped.token))
	wantOutage(t, n.exchange(i, protocol.CallLogout, dropped.token))
	if got := n.exchange(i, protocol.CallRefresh, kept.token); got.status != http.StatusOK {
		t.Errorf("a session that is there: %s", got)
	}
	if err := admin.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
		t.Fatal(err)
	}
	n.lookAgain()
	n.ready()
	want(t, n.exchange(i, protocol.CallRefresh, dropped.token), 403, token.SessionUnknown)
	if got := n.login(i, "alice", rightPassword); got.status != http.StatusOK {
		t.Errorf("a login: %s", got)
	}
}

// restarts: whatever a refresh meets meanwhile, it is granted or an outage.
func restarts(t *testing.T, s *servers, i *instance, clock *skipClock) {
	t.Helper()
	n := s.inPostgres(t, clock)
	n.serving(i)
	n.ready()
	var outages atomic.Int64
	rounds, stop := n.load(i, 8, func(got answer) bool {
		switch {
		case got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "":
			outages.Add(1)
		case got.status != http.StatusOK:
			t.Errorf("a refresh: %s", got)
			return false
		}
		return true
	})
	for range 2 {
		more(t, rounds, 50)
		s.postgres.Restart(t)
	}
	s.postgres.Stop()
	eventually(t, "it is an outage", func() (bool, string) { return outages.Load() > 0, "" })
	n.lookAgain()
	n.await(api.ConditionStoreReady, api.ReasonUnreachable)
	s.postgres.Start(t)
	more(t, rounds, 50)
	stop()
	n.lookAgain()
	n.ready()
}
