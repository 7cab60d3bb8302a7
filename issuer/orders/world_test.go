// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package orders

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/session"
	"github.com/tokenward/tokenward/internal/session/configmap"
	inmemory "github.com/tokenward/tokenward/internal/session/memory"
	"github.com/tokenward/tokenward/internal/testenv"
	"github.com/tokenward/tokenward/issuer/exchange"
)

// server is a real API server, for all tests of the package.
var server struct {
	client.Client
	shards client.WithWatch
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		return m.Run() // of pure functions, in many processes: no cluster
	}
	log.SetLogger(logr.Discard())
	env, err := testenv.New(testenv.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	scheme := runtime.NewScheme()
	server.Client, err = client.New(env.Config, client.Options{Scheme: scheme})
	if err = errors.Join(err, clientgoscheme.AddToScheme(scheme), api.AddToScheme(scheme)); err == nil {
		server.shards, err = configmap.NewClient(env.Config)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	if err := env.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// clock stands still until it is told to go on.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// recorder keeps Events as "reason: note".
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) Eventf(_, _ runtime.Object, _, reason, _, note string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, reason+": "+fmt.Sprintf(note, args...))
}

func (r *recorder) of(reason Event) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []string
	for _, event := range r.events {
		if strings.HasPrefix(event, string(reason)) {
			found = append(found, event)
		}
	}
	return found
}

// flaky is a store that can be away, and counts the orders that reach it.
type flaky struct {
	session.Store
	mu     sync.Mutex
	err    error
	before func() // a sweep
	asked  int
}

func (f *flaky) RevokeWhere(ctx context.Context, which session.Selection, as session.Revocation) (int, error) {
	f.mu.Lock()
	f.asked++
	err, before := f.err, f.before
	f.mu.Unlock()
	if before != nil {
		before()
	}
	if err := errors.Join(err, ctx.Err()); err != nil {
		return 0, err
	}
	return f.Store.RevokeWhere(ctx, which, as)
}

func (f *flaky) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *flaky) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// issuer is one replica: a controller with a store instance of its own.
type issuer struct {
	*Controller
	store *flaky
	// serves is what the registry knows about the policy.
	serves *exchange.Policy
	err    error
}

func (i *issuer) Policy(string, string) (*exchange.Policy, error) { return i.serves, i.err }

// world is a policy on the API server with its sessions.
type world struct {
	t      *testing.T
	clock  *clock
	events *recorder
	policy *api.TokenPolicy
	open   func() session.Store
}

type backend func(*world) func() session.Store

func inMemory(w *world) func() session.Store {
	backing := inmemory.NewBacking()
	return func() session.Store {
		store := inmemory.New(session.PolicyID(w.policy.UID), inmemory.Options{Backing: backing, Now: w.clock.Now})
		w.t.Cleanup(func() { _ = store.Close() })
		return store
	}
}

func inConfigMaps(w *world) func() session.Store {
	sealer, err := configmap.NewSealer(configmap.AddSealingKey(nil))
	if err != nil {
		w.t.Fatal(err)
	}
	return func() session.Store {
		store, err := configmap.New(configmap.Config{
			Client: server.shards, Namespace: w.policy.Namespace, Policy: session.PolicyID(w.policy.UID),
			OwnerNamespace: w.policy.Namespace, OwnerName: w.policy.Name,
			Shards: 3, MaxSessions: 100, Sealer: sealer, Now: w.clock.Now,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = store.Close() })
		return store
	}
}

func newWorld(t *testing.T, in backend) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{now: time.Now().UTC().Truncate(time.Second).Add(300 * time.Millisecond)}, events: &recorder{}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "orders-"}}
	if err := server.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	w.policy = &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "shop"},
		Spec: api.TokenPolicySpec{
			SigningKeyRef: api.SigningKeyReference{Name: "shop"},
			Issuer:        "https://shop.example.com", Audiences: []string{"shop-api"},
			Users: api.Users{Secret: &api.SecretUsers{Name: "shop-users"}},
		},
	}
	if err := server.Create(t.Context(), w.policy); err != nil {
		t.Fatal(err)
	}
	w.open = in(w)
	return w
}

func (w *world) issuer() *issuer {
	i := &issuer{store: &flaky{Store: w.open()}}
	i.serves = &exchange.Policy{UID: session.PolicyID(w.policy.UID), Sessions: i.store}
	i.Controller = New(server.Client, server.Client, Options{Policies: i, Recorder: w.events, Now: w.clock.Now})
	return i
}

var lifetimes = session.Policy{TTL: 5 * time.Minute, IdleTimeout: time.Hour, AbsoluteTimeout: 24 * time.Hour}

// login makes a session that began at a moment, whenever it reaches the store.
func (w *world) login(store session.Store, subject string, at time.Time) session.Session {
	w.t.Helper()
	s := session.New(session.PolicyID(w.policy.UID), subject, at, lifetimes, session.NewTokenID())
	if err := store.Create(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// alive are the subjects whose sessions can be refreshed.
func (w *world) alive(store session.Store, sessions ...session.Session) string {
	w.t.Helper()
	var subjects []string
	for _, s := range sessions {
		found, err := store.Load(w.t.Context(), s.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		shown := session.Presented{Generation: 1, TokenID: s.Current.ID, ExpiresAt: s.Current.ExpiresAt}
		if session.Decide(found, shown, w.clock.Now(), lifetimes, "next").Action == session.ActionRotate {
			subjects = append(subjects, s.Subject)
		}
	}
	slices.Sort(subjects)
	return strings.Join(subjects, " ")
}

// annotate writes annotations, as `kubectl annotate --overwrite` does, and gives the new
// version; nil removes.
func (w *world) annotate(pairs map[string]*string) *api.TokenPolicy {
	w.t.Helper()
	var fields []string
	for key, value := range pairs {
		text := "null"
		if value != nil {
			text = fmt.Sprintf("%q", *value)
		}
		fields = append(fields, fmt.Sprintf("%q: %s", key, text))
	}
	policy := w.policy.DeepCopy()
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata": {"annotations": {`+strings.Join(fields, ", ")+`}}}`))
	if err := server.Patch(w.t.Context(), policy, patch); err != nil {
		w.t.Fatal(err)
	}
	return policy
}

func (w *world) order(key, value string) *api.TokenPolicy {
	w.t.Helper()
	return w.annotate(map[string]*string{key: &value})
}

func (w *world) remove(key string) *api.TokenPolicy {
	w.t.Helper()
	return w.annotate(map[string]*string{key: nil})
}

func (w *world) look(i *issuer) time.Duration {
	w.t.Helper()
	result, err := i.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(w.policy)})
	if err != nil {
		w.t.Fatal(err)
	}
	return result.RequeueAfter
}

// watched is what the watch of a replica shows.
func (w *world) watched(i *issuer, before, after *api.TokenPolicy) {
	i.watch().Update(w.t.Context(), event.UpdateEvent{ObjectOld: before, ObjectNew: after}, queueOf(w.t))
}

func (w *world) status(order api.RevocationOrder) api.Revocation {
	w.t.Helper()
	policy := &api.TokenPolicy{}
	if err := server.Get(w.t.Context(), client.ObjectKeyFromObject(w.policy), policy); err != nil {
		w.t.Fatal(err)
	}
	if entry := entryOf(policy, order); entry != nil {
		return *entry
	}
	return api.Revocation{}
}

// want checks the entry of an order.
func (w *world) want(order api.RevocationOrder, value string, state api.RevocationState, sessions int32) api.Revocation {
	w.t.Helper()
	got := w.status(order)
	if got.Value != value || got.State != state || got.Sessions != sessions {
		w.t.Fatalf("%s is %+v, want %q %s with %d sessions", order, got, value, state, sessions)
	}
	return got
}
