// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/issuer"
)

// allowThisMachine lets policies name the tests' servers, and no other address of loopback.
func allowThisMachine(o *issuer.Options) {
	o.AllowOutbound = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}
}

// serverPassword opens every server of the tests, until one is changed.
const serverPassword = "c4n4ry-server-password"

// table is of users, for both kinds of databases.
func table(disabled string) []string {
	return []string{
		"CREATE TABLE users (id varchar(64) PRIMARY KEY, phone varchar(32), password varchar(255), role varchar(32), disabled " + disabled + ")",
		"INSERT INTO users VALUES ('alice', '+82', '" + passwordHash() + "', 'admin', false), ('bob', '+83', '" + passwordHash() + "', 'admin', true)",
	}
}

// postgresServer has a database of users, and lets a user of its own into others.
type postgresServer struct {
	*testservers.PostgresServer
	users string
}

func startPostgres(t *testing.T) *postgresServer {
	t.Helper()
	p := &postgresServer{PostgresServer: testservers.Postgres(t, testservers.PostgresTLS())}
	p.Exec(t, "postgres", "CREATE ROLE tokenward LOGIN PASSWORD '"+serverPassword+"'")
	p.users = p.Database(t)
	for _, statement := range append(table("boolean"), "GRANT SELECT ON users TO tokenward") {
		p.Exec(t, p.users, statement)
	}
	return p
}

// empty makes a database in which the issuer may make its tables.
func (p *postgresServer) empty(t *testing.T) string {
	t.Helper()
	name := p.Database(t)
	p.Exec(t, "postgres", "ALTER DATABASE "+name+" OWNER TO tokenward")
	return name
}

func (p *postgresServer) secret(key, password, database string) map[string]string {
	return map[string]string{key: p.URLFor("tokenward", password, database), "ca.crt": string(p.CA)}
}

// sqlUsers asks with placeholders of the driver's.
func sqlUsers(driver api.SQLDriver, secret string) *api.SQLUsers {
	placeholder := map[api.SQLDriver]string{api.SQLDriverPostgres: "$1", api.SQLDriverMySQL: "?"}[driver]
	return &api.SQLUsers{
		Driver: driver, SecretRef: api.SecretReference{Name: secret},
		Authenticate: api.SQLAuthenticate{
			Query: "SELECT id, role, disabled, password FROM users WHERE id = " + placeholder, Parameters: []string{"id"},
			Password: &api.SQLPassword{Column: "password", Field: "password"},
		},
		Lookup: api.SQLLookup{Query: "SELECT id, role, disabled FROM users WHERE id = " + placeholder},
	}
}

// userService answers by path: /fine as agreed, the others not.
type userService struct {
	*httptest.Server
	bearer atomic.Pointer[string]
}

func startUserService(t *testing.T) *userService {
	t.Helper()
	s := &userService{}
	s.bearer.Store(new(serverPassword))
	done := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/fine", s.answer)
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/fine", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-done:
		}
	})
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<html>c4n4ry")
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for range 10 << 10 {
			if _, err := fmt.Fprint(w, strings.Repeat(" ", 1<<10)); err != nil {
				return
			}
		}
	})
	s.Server = httptest.NewUnstartedServer(mux)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes are to fail here
	s.StartTLS()
	t.Cleanup(func() { close(done); s.Close() })
	return s
}

func (s *userService) answer(w http.ResponseWriter, r *http.Request) {
	var question struct {
		Action, Subject string
		Fields          map[string]string
	}
	_ = json.NewDecoder(r.Body).Decode(&question) // a question that is none is about nobody
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Header.Get("Authorization") != "Bearer "+*s.bearer.Load():
		w.WriteHeader(http.StatusUnauthorized)
	case question.Action == "lookup" && question.Subject == "alice",
		question.Action == "authenticate" && question.Fields["id"] == "alice" && question.Fields["password"] == rightPassword:
		_, _ = fmt.Fprint(w, `{"subject": "alice", "attributes": {"role": "admin"}}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *userService) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// on has the tenant live by the clock of an issuer that it shares, and its policy end
// with the test: another test's issuer would look for servers that are gone.
func (n *tenant) on(clock *skipClock) {
	n.t.Helper()
	n.clock = clock
	n.t.Cleanup(func() {
		if err := shared.admin.Delete(context.Background(), n.policy); err != nil {
			n.t.Error(err)
		}
	})
}

// withSecret makes a Secret that the issuer may read.
func (n *tenant) withSecret(name string, data map[string]string) {
	n.t.Helper()
	create(n.t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: name}, StringData: data})
	n.allow(name)
}

// allow lets the issuer read a Secret.
func (n *tenant) allow(name string) {
	n.t.Helper()
	about := metav1.ObjectMeta{Namespace: n.namespace, Name: "read-" + name}
	create(n.t,
		&rbacv1.Role{ObjectMeta: about, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{name}, Verbs: []string{"get"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: about, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: about.Name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: operator, Name: issuer.ServiceAccount}},
		})
}

// putSecret changes some keys of a Secret.
func (n *tenant) putSecret(name string, data map[string]string) {
	n.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: n.namespace, Name: name}}
	patch, err := json.Marshal(map[string]any{"stringData": data})
	if err != nil {
		n.t.Fatal(err)
	}
	if err := shared.admin.Patch(n.t.Context(), secret, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		n.t.Fatal(err)
	}
}

// change changes the policy's spec. Whatever it is, the issuer looks at everything again.
func (n *tenant) change(change func(*api.TokenPolicySpec)) {
	n.t.Helper()
	if err := shared.admin.Get(n.t.Context(), client.ObjectKeyFromObject(n.policy), n.policy); err != nil {
		n.t.Fatal(err)
	}
	before := n.policy.DeepCopy()
	change(&n.policy.Spec)
	if err := shared.admin.Patch(n.t.Context(), n.policy, client.MergeFrom(before)); err != nil {
		n.t.Fatal(err)
	}
}

// lookAgain has the issuer look at once, and not when its clock says so.
func (n *tenant) lookAgain() {
	n.t.Helper()
	n.change(func(spec *api.TokenPolicySpec) {
		spec.Audiences = []string{"shop-api", "look-" + strconv.FormatInt(n.policy.Generation, 10)}
	})
}

// looked has the issuer look at once and says whether it reports the reason.
func (n *tenant) looked(kind, reason string) (found bool, last string) {
	n.t.Helper()
	n.lookAgain()
	eventually(n.t, "it is looked at", func() (bool, string) {
		var condition metav1.Condition
		condition, last = n.condition(kind)
		found = condition.Reason == reason
		return condition.Reason != "", last
	})
	return found, last
}

// condition of the policy, of this generation.
func (n *tenant) condition(kind string) (metav1.Condition, string) {
	n.t.Helper()
	policy := &api.TokenPolicy{}
	if err := shared.admin.Get(n.t.Context(), client.ObjectKeyFromObject(n.policy), policy); err != nil {
		n.t.Fatal(err)
	}
	found := meta.FindStatusCondition(policy.Status.Conditions, kind)
	if found == nil || found.ObservedGeneration != policy.Generation {
		return metav1.Condition{}, "nothing yet"
	}
	return *found, found.Reason + ": " + found.Message
}

func (n *tenant) await(kind, reason string) metav1.Condition {
	n.t.Helper()
	var found metav1.Condition
	eventually(n.t, kind+" says "+reason, func() (bool, string) {
		var text string
		found, text = n.condition(kind)
		return found.Reason == reason, text
	})
	return found
}

// ready waits until users and sessions are there.
func (n *tenant) ready() {
	n.t.Helper()
	n.await(api.ConditionUsersReady, api.ReasonUsersReady)
	n.await(api.ConditionStoreReady, api.ReasonStoreReady)
}

// wantOutage is the answer that logs nobody out and lets nobody in.
func wantOutage(t *testing.T, got answer) {
	t.Helper()
	want(t, got, http.StatusServiceUnavailable, token.IssuerUnavailable)
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// seen is all that people and machines can read about a tenant and an issuer.
func seen(t *testing.T, i *instance, tenants ...*tenant) map[string]string {
	t.Helper()
	families, err := i.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"log": i.logged(), "metrics": fmt.Sprint(families)}
	for _, n := range tenants {
		policy := &api.TokenPolicy{}
		if err := shared.admin.Get(t.Context(), client.ObjectKeyFromObject(n.policy), policy); err != nil {
			t.Fatal(err)
		}
		var events corev1.EventList
		if err := shared.admin.List(t.Context(), &events, client.InNamespace(n.namespace)); err != nil {
			t.Fatal(err)
		}
		texts["status of "+n.namespace] = fmt.Sprint(policy.Status)
		texts["events of "+n.namespace] = fmt.Sprint(events.Items)
	}
	return texts
}

func wantNoSecrets(t *testing.T, texts map[string]string) {
	t.Helper()
	for where, text := range texts {
		for what, secret := range map[string]string{
			"canary": "c4n4ry", "access token": "eyJ", "hash": "$argon2id", "private key": "PRIVATE KEY",
		} {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("the %s holds the %s: %s", where, what, text[max(0, at-200):min(len(text), at+200)])
			}
		}
	}
}

// nobody is an address of this machine where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func clientKey(namespace, name string) client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: name}
}
