// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/outbound"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/postgres"
	"github.com/tokenward/tokenward/internal/session/redis"
	"github.com/tokenward/tokenward/internal/users"
	"github.com/tokenward/tokenward/internal/users/secret"
	"github.com/tokenward/tokenward/internal/users/sql"
	"github.com/tokenward/tokenward/issuer/policies"
	"github.com/tokenward/tokenward/issuer/refusal"
)

var account = ServiceAccount{Namespace: "tokenward-system", Name: "tokenward-issuer"}

// apiServer is an error of the API server, as it comes from reading a Secret.
func apiServer(err error) error { return fmt.Errorf("get Secret shop/shop-users: %w", err) }

var (
	secrets   = schema.GroupResource{Resource: "secrets"}
	forbidden = apiServer(apierrors.NewForbidden(secrets, "shop-users", errors.New("no RBAC")))
	notFound  = apiServer(apierrors.NewNotFound(secrets, "shop-users"))
	internal  = apiServer(apierrors.NewInternalError(errors.New("read tcp 10.0.0.1:53412: connection reset")))
)

// grantLines are what the tenant is to paste.
func grantLines(role string) string {
	return "kubectl create role " + role + " --namespace=shop --verb=get --resource=secrets --resource-name=shop-users && " +
		"kubectl create rolebinding " + role + " --namespace=shop --role=" + role + " --serviceaccount=tokenward-system:tokenward-issuer"
}

type wanted struct {
	status metav1.ConditionStatus
	reason string
	says   []string
}

func (w wanted) compare(t *testing.T, kind string, got metav1.Condition) {
	t.Helper()
	if got.Type != kind || got.Status != w.status || got.Reason != w.reason || got.ObservedGeneration != 3 {
		t.Errorf("got %+v", got)
	}
	for _, text := range w.says {
		if !strings.Contains(got.Message, text) {
			t.Errorf("%q does not say %q", got.Message, text)
		}
	}
	if strings.Contains(got.Message, "53412") {
		t.Error("the message would change with every try")
	}
	if got.Status == metav1.ConditionFalse && !strings.Contains(got.Message, "spec.") {
		t.Errorf("%q names no field", got.Message)
	}
}

func TestTheUsersConditionSaysWhatToDo(t *testing.T) {
	inSecret := api.Users{Secret: &api.SecretUsers{Name: "shop-users"}}
	inSQL := api.Users{SQL: &api.SQLUsers{SecretRef: api.SecretReference{Name: "shop-users"}}}
	inHTTP := api.Users{HTTP: &api.HTTPUsers{SecretRef: &api.SecretReference{Name: "shop-users"}}}
	withoutSecret := api.Users{HTTP: &api.HTTPUsers{}}
	fault := func(fault users.Fault, detail string) policies.UsersLook {
		return policies.UsersLook{Err: &users.UnavailableError{Fault: fault, Detail: detail}}
	}
	tests := map[string]struct {
		users api.Users
		look  policies.UsersLook
		wanted
	}{
		"all is well": {
			inSecret,
			policies.UsersLook{Secret: secret.Report{Users: 2}},
			wanted{"True", api.ReasonUsersReady, []string{"2 users"}},
		},
		"some entries are broken": {
			inSecret,
			policies.UsersLook{Secret: secret.Report{Users: 3, Disabled: 2, Broken: []secret.Broken{{Key: "bob", Reason: "the value is not a JSON object"}}}},
			wanted{"True", api.ReasonUsersPartlyInvalid, []string{"bob: the value is not a JSON object", "1 can"}},
		},
		"not granted": {
			inSecret,
			policies.UsersLook{Err: forbidden},
			wanted{"False", api.ReasonSecretAccessDenied, []string{"spec.users.secret.name", grantLines("tokenward-users-web")}},
		},
		"no such Secret": {
			inSecret,
			policies.UsersLook{Err: notFound},
			wanted{"False", api.ReasonSecretNotFound, []string{`"shop-users"`, `"shop"`, "spec.users.secret.name", "create it with one key per user"}},
		},
		"an outage of the API server": {
			inSecret,
			policies.UsersLook{Err: internal},
			wanted{"False", api.ReasonUsersUnavailable, []string{"for now", "Nobody is logged out"}},
		},
		"an outage on the way to it": {
			inSecret,
			policies.UsersLook{Err: errors.New("read tcp 10.0.0.1:53412: connection reset")},
			wanted{"False", api.ReasonUsersUnavailable, []string{"for now"}},
		},
		"a database that answers": {
			inSQL, policies.UsersLook{}, wanted{"True", api.ReasonUsersReady, []string{"both queries"}},
		},
		"rows without a hash": {
			inSQL,
			policies.UsersLook{SQL: sql.Report{Unusable: 3, Reason: "not an argon2id hash"}},
			wanted{"True", api.ReasonUsersPartlyInvalid, []string{"password.column", "not an argon2id hash"}},
		},
		"a database's Secret is not granted": {
			inSQL,
			policies.UsersLook{Err: forbidden},
			wanted{"False", api.ReasonSecretAccessDenied, []string{"spec.users.sql.secretRef.name", grantLines("tokenward-users-web")}},
		},
		"a database's Secret is not there": {
			inSQL,
			policies.UsersLook{Err: notFound},
			wanted{"False", api.ReasonSecretNotFound, []string{"spec.users.sql.secretRef.name", "create it with the key dsn"}},
		},
		"a DSN that is none": {
			inSQL,
			policies.UsersLook{Err: &policies.InvalidError{InSecret: true, Text: "dsn: is not one"}},
			wanted{"False", api.ReasonSecretInvalid, []string{`spec.users.sql.secretRef.name: Secret "shop-users": dsn: is not one.`, "have to wait"}},
		},
		"a DSN that is none any more": {
			inSQL,
			policies.UsersLook{Err: &policies.InvalidError{InSecret: true, Text: "dsn: is not one"}, Former: true},
			wanted{"False", api.ReasonSecretInvalid, []string{"dsn: is not one.", "The former credentials stay in use."}},
		},
		"a spec that only opening shows to be wrong": {
			inSQL,
			policies.UsersLook{Err: &policies.InvalidError{Text: "authenticate.password.column: is taken"}},
			wanted{"False", api.ReasonSpecInvalid, []string{"spec.users.sql: authenticate.password.column"}},
		},
		"an address that is not allowed": {
			inSQL,
			policies.UsersLook{Err: &outbound.RefusedError{Kind: "loopback"}},
			wanted{"False", api.ReasonAddressRefused, []string{"loopback", "--allow-outbound-cidr"}},
		},
		"nobody answers": {
			inSQL, fault(users.FaultAddress, "dsn: nothing answers at the address"),
			wanted{"False", api.ReasonUnreachable, []string{"spec.users.sql: dsn: nothing answers at the address. Check host and port"}},
		},
		"no trust":        {inSQL, fault(users.FaultTLS, "dsn: x"), wanted{"False", api.ReasonTLSNotTrusted, []string{`ca.crt of Secret "shop-users" (spec.users.sql.secretRef.name)`}}},
		"wrong password":  {inSQL, fault(users.FaultCredentials, "dsn: x"), wanted{"False", api.ReasonCredentialsRefused, []string{`Mend Secret "shop-users" (spec.users.sql.secretRef.name)`}}},
		"no token":        {withoutSecret, fault(users.FaultCredentials, "x"), wanted{"False", api.ReasonCredentialsRefused, []string{"Mend a Secret, which spec.users.http.secretRef has to name"}}},
		"no such table":   {inSQL, fault(users.FaultSchema, "lookup.query: x"), wanted{"False", api.ReasonSchemaMismatch, []string{"lookup.query: x."}}},
		"two rows":        {inSQL, fault(users.FaultAnswer, "lookup.query: x"), wanted{"False", api.ReasonAnswerInvalid, []string{"Whom such an answer is about"}}},
		"slow":            {inSQL, fault(users.FaultTimeout, "x"), wanted{"False", api.ReasonTimeout, []string{"the query an index"}}},
		"a slow service":  {inHTTP, fault(users.FaultTimeout, "x"), wanted{"False", api.ReasonTimeout, []string{"x. It passes when the server has less to do. Nobody"}}},
		"restarting":      {inSQL, fault(users.FaultUnavailable, "x"), wanted{"False", api.ReasonUsersUnavailable, nil}},
		"a service":       {inHTTP, policies.UsersLook{}, wanted{"True", api.ReasonUsersReady, []string{"service answers"}}},
		"a token unread":  {inHTTP, policies.UsersLook{Err: forbidden}, wanted{"False", api.ReasonSecretAccessDenied, []string{"spec.users.http.secretRef.name"}}},
		"a broken answer": {withoutSecret, fault(users.FaultAnswer, "x"), wanted{"False", api.ReasonAnswerInvalid, []string{"spec.users.http: x."}}},
		"new credentials that do not work": {
			inSQL,
			policies.UsersLook{Err: &users.UnavailableError{Fault: users.FaultCredentials, Detail: "dsn: x"}, Former: true},
			wanted{"False", api.ReasonCredentialsRefused, []string{"The former credentials stay in use."}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			policy := &api.TokenPolicy{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 3},
				Spec:       api.TokenPolicySpec{Users: test.users},
			}
			test.compare(t, api.ConditionUsersReady, usersCondition(policy, test.look, account))
		})
	}
}

func TestTheStoreConditionSaysWhatToDo(t *testing.T) {
	inConfigMaps := api.Store{ConfigMap: &api.ConfigMapStore{}}
	inRedis := api.Store{Redis: &api.RedisStore{SecretRef: &api.SecretReference{Name: "shop-users"}}}
	inPostgres := api.Store{Postgres: &api.PostgresStore{SecretRef: api.SecretReference{Name: "shop-users"}}}
	problem := func(problem redis.Problem) policies.StoreLook {
		return policies.StoreLook{Err: &redis.Error{Problem: problem}}
	}
	kind := func(kind postgres.Kind) policies.StoreLook {
		return policies.StoreLook{Err: &postgres.Error{Kind: kind}}
	}
	tests := map[string]struct {
		store api.Store
		look  policies.StoreLook
		wanted
	}{
		"ConfigMaps":    {inConfigMaps, policies.StoreLook{}, wanted{"True", api.ReasonStoreReady, nil}},
		"unread shards": {inConfigMaps, policies.StoreLook{Err: forbidden}, wanted{"False", api.ReasonStoreUnavailable, []string{"for now", "Nobody is logged out"}}},
		"no sealing key": {
			inConfigMaps,
			policies.StoreLook{Err: refusal.Unavailable("the keys that seal sessions cannot be read yet", errors.New("x"))},
			wanted{"False", api.ReasonStoreUnavailable, []string{"the keys that seal sessions cannot be read yet."}},
		},
		"a full store":    {inConfigMaps, policies.StoreLook{Full: true, Unreadable: true}, wanted{"False", api.ReasonStoreFull, []string{"maxSessions", "refreshes go on"}}},
		"forged records":  {inConfigMaps, policies.StoreLook{Unreadable: true}, wanted{"True", api.ReasonStorePartlyUnreadable, []string{"tokenward-sessions"}}},
		"Redis":           {inRedis, policies.StoreLook{}, wanted{"True", api.ReasonStoreReady, nil}},
		"Redis is closed": {inRedis, policies.StoreLook{Err: forbidden}, wanted{"False", api.ReasonSecretAccessDenied, []string{"spec.store.redis.secretRef.name", grantLines("tokenward-store-web")}}},
		"Redis is lost":   {inRedis, policies.StoreLook{Err: notFound}, wanted{"False", api.ReasonSecretNotFound, []string{"the key password"}}},
		"Redis's Secret": {
			inRedis,
			policies.StoreLook{Err: &policies.InvalidError{InSecret: true, Text: "username: is there without password"}},
			wanted{"False", api.ReasonSecretInvalid, []string{`Secret "shop-users": username`}},
		},
		"Redis is away":        {inRedis, problem(redis.ProblemUnreachable), wanted{"False", api.ReasonUnreachable, []string{"spec.store.redis", "have to wait"}}},
		"Redis has no address": {inRedis, problem(redis.ProblemUnresolved), wanted{"False", api.ReasonUnreachable, []string{"does not resolve"}}},
		"Redis at home":        {inRedis, policies.StoreLook{Err: &outbound.RefusedError{Kind: "loopback"}}, wanted{"False", api.ReasonAddressRefused, []string{"loopback"}}},
		"Redis refuses":        {inRedis, problem(redis.ProblemCredentials), wanted{"False", api.ReasonCredentialsRefused, []string{`username and password in Secret "shop-users" (spec.store.redis.secretRef.name)`}}},
		"Redis is not trusted": {inRedis, problem(redis.ProblemTLS), wanted{"False", api.ReasonTLSNotTrusted, []string{"ca.crt"}}},
		"Redis lacks a right":  {inRedis, problem(redis.ProblemRights), wanted{"False", api.ReasonPermissionDenied, nil}},
		"Redis is a Cluster":   {inRedis, problem(redis.ProblemMode), wanted{"False", api.ReasonWrongMode, nil}},
		"Redis is a replica":   {inRedis, problem(redis.ProblemReadOnly), wanted{"False", api.ReasonReadOnly, nil}},
		"Redis drops keys":     {inRedis, problem(redis.ProblemEviction), wanted{"False", api.ReasonEvicts, []string{"logins have to wait"}}},
		"Redis is busy":        {inRedis, problem(redis.ProblemBusy), wanted{"False", api.ReasonStoreUnavailable, []string{"maxConnections"}}},
		"Redis is full":        {inRedis, problem(redis.ProblemFull), wanted{"False", api.ReasonStoreUnavailable, []string{"refreshes go on"}}},
		"a full PostgreSQL":    {inPostgres, policies.StoreLook{Err: session.ErrFull}, wanted{"False", api.ReasonStoreFull, []string{"spec.store.postgres.maxSessions", "refreshes go on"}}},
		"no connection":        {inPostgres, kind(postgres.Busy), wanted{"False", api.ReasonStoreUnavailable, nil}},
		"a lost table":         {inPostgres, kind(postgres.SchemaDamaged), wanted{"False", api.ReasonStoreUnavailable, nil}},
		"Redis of tomorrow":    {inRedis, problem(redis.ProblemNewerRecord), wanted{"False", api.ReasonNewerRelease, nil}},
		"Redis fails":          {inRedis, problem(redis.ProblemOther), wanted{"False", api.ReasonStoreUnavailable, nil}},
		"Redis is silent":      {inRedis, policies.StoreLook{Err: context.DeadlineExceeded}, wanted{"False", api.ReasonUnreachable, nil}},
		"PostgreSQL":           {inPostgres, policies.StoreLook{}, wanted{"True", api.ReasonStoreReady, nil}},
		"PostgreSQL is closed": {inPostgres, policies.StoreLook{Err: forbidden}, wanted{"False", api.ReasonSecretAccessDenied, []string{"spec.store.postgres.secretRef.name", grantLines("tokenward-store-web")}}},
		"PostgreSQL is lost":   {inPostgres, policies.StoreLook{Err: notFound}, wanted{"False", api.ReasonSecretNotFound, []string{"the key url"}}},
		"PostgreSQL is unread": {inPostgres, policies.StoreLook{Err: internal, Former: true}, wanted{"False", api.ReasonStoreUnavailable, []string{"former credentials"}}},
		"a bad URL":            {inPostgres, kind(postgres.Misconfigured), wanted{"False", api.ReasonSecretInvalid, nil}},
		"no answer":            {inPostgres, kind(postgres.Unreachable), wanted{"False", api.ReasonUnreachable, []string{"spec.store.postgres"}}},
		"a wrong password":     {inPostgres, kind(postgres.CredentialsRefused), wanted{"False", api.ReasonCredentialsRefused, nil}},
		"another CA":           {inPostgres, kind(postgres.TLSNotTrusted), wanted{"False", api.ReasonTLSNotTrusted, nil}},
		"no database":          {inPostgres, kind(postgres.DatabaseMissing), wanted{"False", api.ReasonDatabaseMissing, nil}},
		"no right":             {inPostgres, kind(postgres.PermissionDenied), wanted{"False", api.ReasonPermissionDenied, nil}},
		"a newer schema":       {inPostgres, kind(postgres.SchemaNewer), wanted{"False", api.ReasonNewerRelease, nil}},
		"a standby":            {inPostgres, kind(postgres.ReadOnly), wanted{"False", api.ReasonReadOnly, nil}},
		"an outage":            {inPostgres, kind(postgres.Unavailable), wanted{"False", api.ReasonStoreUnavailable, nil}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			policy := &api.TokenPolicy{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 3},
				Spec:       api.TokenPolicySpec{Store: test.store},
			}
			test.compare(t, api.ConditionStoreReady, storeCondition(policy, test.look, account))
		})
	}
}

func TestTheConditionIsBounded(t *testing.T) {
	policy := &api.TokenPolicy{Spec: api.TokenPolicySpec{Users: api.Users{Secret: &api.SecretUsers{Name: strings.Repeat("s", 253)}}}}
	var report secret.Report
	for i := range 5000 {
		report.Broken = append(report.Broken, secret.Broken{Key: fmt.Sprintf("%0253d", i), Reason: strings.Repeat("ö", 5000)})
	}
	got := usersCondition(policy, policies.UsersLook{Secret: report}, ServiceAccount{})
	if len(got.Message) > 32768 || !strings.Contains(got.Message, "and 4990 more") {
		t.Errorf("%d bytes", len(got.Message))
	}
}

// What a server answers is the tenant's own doing, and no reason for the issuer to write
// again and again.
func TestTheWordsOfOthersAreBoundedAndComeBackAsTheyWereWritten(t *testing.T) {
	words := "column \"\xff" + strings.Repeat("x", 1<<20)
	policy := &api.TokenPolicy{Spec: api.TokenPolicySpec{Users: api.Users{SQL: &api.SQLUsers{}}, Store: api.Store{Redis: &api.RedisStore{}}}}
	for name, got := range map[string]metav1.Condition{
		"of a database": usersCondition(policy, policies.UsersLook{Err: &users.UnavailableError{Fault: users.FaultSchema, Detail: words}}, account),
		"of a Secret":   storeCondition(policy, policies.StoreLook{Err: &policies.InvalidError{Text: words}}, account),
	} {
		t.Run(name, func(t *testing.T) {
			if len(got.Message) > 1024 || !utf8.ValidString(got.Message) {
				t.Errorf("%d bytes, valid %t", len(got.Message), utf8.ValidString(got.Message))
			}
			if !strings.HasSuffix(got.Message, "have to wait.") {
				t.Errorf("%q does not say what it means", got.Message)
			}
		})
	}
}
