// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/tokenward/tokenward/internal/session/configmap"
	"github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/testenv"
	"github.com/tokenward/tokenward/internal/testservers"
	"github.com/tokenward/tokenward/internal/token"
	"github.com/tokenward/tokenward/internal/users/password"
)

// patience is how long to wait for what a real server or process does in its own time.
const patience = time.Minute

// algorithms: PS256 is the one whose signatures differ each time.
var algorithms = []token.Algorithm{token.EdDSA, token.ES256, token.RS256, token.PS256}

// world is what the figures share.
type world struct {
	*report
	// ctx ends when the run is interrupted.
	ctx   context.Context //nolint:containedctx // of one test
	scale scale

	postgres *testservers.PostgresServer
	mariadb  *testservers.MariaDBServer
	stores   []access
	keys     map[token.Algorithm]*token.PrivateKey
}

func newWorld(ctx context.Context, t *testing.T, size scale, r *report) *world {
	t.Helper()
	w := &world{report: r, ctx: ctx, scale: size, keys: map[token.Algorithm]*token.PrivateKey{}}
	goredis.SetLogger(&logging.VoidLogger{}) // it would report each attempt to reach a server that is just starting
	ctrllog.SetLogger(logr.Discard())
	r.say("starting etcd and kube-apiserver, Redis, PostgreSQL, MariaDB")
	api := startAPI(t)
	redis := testservers.Redis(t, testservers.RedisOptions{Config: []string{"appendonly yes", "appendfsync everysec"}})
	var settings []testservers.PostgresOption
	if size.full { // what is measured writes its log through to the disk, as in production
		settings = append(settings, testservers.PostgresSetting("fsync", "on"), testservers.PostgresSetting("full_page_writes", "on"))
	}
	w.postgres = testservers.Postgres(t, settings...)
	w.mariadb = testservers.MariaDB(t)
	for _, algorithm := range algorithms {
		key, err := token.GenerateKey(algorithm, 2048)
		if err != nil {
			t.Fatal(err)
		}
		w.keys[algorithm] = key
	}

	inPostgres := w.usersInPostgres(t)
	cluster := api(t)
	w.stores = []access{
		{Kind: "memory", Users: w.usersInMariaDB(t), memory: memory.NewBacking()},
		{Kind: "configMap", Cluster: cluster, Sealing: configmap.AddSealingKey(nil), Users: people{Secret: w.usersInSecret(t, cluster)}},
		{Kind: "redis", Redis: redis.Addr, Users: inPostgres},
		{Kind: "postgres", Postgres: w.postgres.URL(w.postgres.Database(t)), Users: inPostgres},
	}
	return w
}

// shared are the stores that processes can share.
func (w *world) shared() []access { return w.stores[1:] }

func (w *world) store(t *testing.T, kind string) access {
	t.Helper()
	for _, store := range w.stores {
		if store.Kind == kind {
			return store
		}
	}
	t.Fatalf("there is no store %q", kind)
	return access{}
}

// startAPI begins to start a control plane; the others start meanwhile. What it
// returns waits for it.
func startAPI(t *testing.T) func(t *testing.T) *cluster {
	t.Helper()
	var env *testenv.Env
	var failed error
	started := make(chan struct{})
	go func() {
		defer close(started)
		env, failed = testenv.New(testenv.Options{})
	}()
	t.Cleanup(func() {
		<-started
		if failed == nil {
			failed = env.Stop()
		}
		if failed != nil {
			t.Errorf("the control plane: %v", failed)
		}
	})
	return func(t *testing.T) *cluster {
		t.Helper()
		<-started
		if failed != nil {
			t.FailNow()
		}
		c := &cluster{Host: env.Config.Host, CA: env.Config.CAData, Certificate: env.Config.CertData, Key: env.Config.KeyData}
		for _, name := range []string{operator, tenant} {
			c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
		return c
	}
}

func (c *cluster) create(t *testing.T, object client.Object) {
	t.Helper()
	admin, err := configmap.NewClient(c.config())
	if err == nil {
		err = admin.Create(t.Context(), object)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The user of every figure but the last logs in with a phone number: it is not the hash
// that is measured.
const (
	alice = "alice"
	phone = "+82 10 1234 5678"

	usersTable = "CREATE TABLE users (id VARCHAR(64) PRIMARY KEY, phone VARCHAR(32), role VARCHAR(32), disabled BOOLEAN)"
	usersRow   = "INSERT INTO users VALUES ('" + alice + "', '" + phone + "', 'admin', FALSE)"
)

func (w *world) usersInPostgres(t *testing.T) people {
	t.Helper()
	database := w.postgres.Database(t)
	w.postgres.Exec(t, database, usersTable+"; "+usersRow)
	return people{Postgres: w.postgres.URL(database)}
}

func (w *world) usersInMariaDB(t *testing.T) people {
	t.Helper()
	database := w.mariadb.Database(t)
	w.mariadb.Exec(t, database, usersTable, usersRow)
	return people{MySQL: w.mariadb.DSN(database)}
}

func (w *world) usersInSecret(t *testing.T, c *cluster) string {
	t.Helper()
	const name = "shop-users"
	c.create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name},
		StringData: map[string]string{
			alice: `{"phone": "` + phone + `", "role": "admin", "password": "` + password.Hash("not used") + `"}`,
		},
	})
	return name
}

// interrupted ends the test when somebody wants the run to end.
func (w *world) interrupted(t *testing.T) {
	t.Helper()
	if w.ctx.Err() != nil {
		t.Fatal("interrupted")
	}
}
