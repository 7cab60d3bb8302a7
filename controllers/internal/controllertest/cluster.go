// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllertest runs controllers against a real API server: as the
// manager's own service account, with the permissions that their RBAC markers ask
// for, with the manager's own cache, and with every request counted.
//
// It is for tests only.
package controllertest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/tokenward/tokenward/controllers"
	"github.com/tokenward/tokenward/controllers/internal/owned"
	"github.com/tokenward/tokenward/internal/testenv"
)

// Namespace is the operator's.
const Namespace = "tokenward-system"

// Cluster is a running API server.
type Cluster struct {
	env *testenv.Env
	// Admin may do everything and reads past every cache.
	Admin client.Client
}

// Run starts a cluster in which the manager may do what the packages' markers say,
// runs the tests, and returns their exit code. For TestMain. Fuzzing alone, which is of pure
// functions and in many processes, gets no cluster.
func Run(m *testing.M, into **Cluster, packages ...string) int {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		return m.Run()
	}
	// Errors of the controllers tell what a test waits for in vain.
	log.SetLogger(funcr.New(func(prefix, args string) { fmt.Fprintln(os.Stderr, prefix, args) }, funcr.Options{Verbosity: -1}))
	cluster, err := start(packages)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*into = cluster
	code := m.Run()
	if err := cluster.env.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the control plane:", err)
		return max(code, 1)
	}
	return code
}

func start(packages []string) (*Cluster, error) {
	rules, err := grants(packages...)
	if err != nil {
		return nil, err
	}
	env, err := testenv.New(testenv.Options{})
	if err != nil {
		return nil, err
	}
	admin, err := client.New(env.Config, client.Options{Scheme: controllers.Scheme()})
	if err == nil {
		err = admin.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}})
	}
	if err == nil {
		err = grant(context.Background(), admin, rules)
	}
	if err != nil {
		_ = env.Stop()
		return nil, err
	}
	return &Cluster{env: env, Admin: admin}, nil
}

// Config is that of an administrator.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.env.Config) }

// Tenant makes a namespace for the test.
func (c *Cluster) Tenant(tb testing.TB) string {
	tb.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "tenant-"}}
	if err := c.Admin.Create(tb.Context(), namespace); err != nil {
		tb.Fatal(err)
	}
	return namespace.Name
}

// ManagerConfig is that of the manager's service account; its requests are counted.
func (c *Cluster) ManagerConfig() (*rest.Config, *Requests) {
	requests := &Requests{}
	as := rest.CopyConfig(c.env.Config)
	as.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + Namespace + ":" + owned.ServiceAccount,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + Namespace, "system:authenticated"},
	}
	as.Wrap(func(next http.RoundTripper) http.RoundTripper { return counter{next, requests} })
	return as, requests
}

// Manager runs a manager until stop is called or the test ends.
func (c *Cluster) Manager(tb testing.TB, setup func(ctrl.Manager) error) (requests *Requests, stop func()) {
	tb.Helper()
	as, requests := c.ManagerConfig()
	mgr, err := ctrl.NewManager(as, ctrl.Options{
		Scheme:                  controllers.Scheme(),
		Cache:                   controllers.CacheOptions(Namespace),
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Controller:              config.Controller{SkipNameValidation: new(true)},
		GracefulShutdownTimeout: new(5 * time.Second),
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := setup(mgr); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context())) // it ends in the cleanup, in order
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("the manager ended with: %v", err)
		}
	})
	tb.Cleanup(stop)
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		tb.Fatal("the manager's cache does not fill")
	}
	return requests, stop
}

// patience is how long the API server and the controllers get for what usually takes
// milliseconds; the machine may be busy.
const patience = 30 * time.Second

// Eventually waits until check finds nothing wrong.
func Eventually(tb testing.TB, what string, check func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	every := time.NewTicker(25 * time.Millisecond)
	defer every.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			last = err // what the deadline itself causes says nothing
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("%s: not after %s: %v", what, patience, last)
		case <-every.C:
		}
	}
}

// Quiet waits until the manager has written nothing for the period.
func (r *Requests) Quiet(tb testing.TB, period time.Duration) {
	tb.Helper()
	last, since := len(r.Writes()), time.Now()
	Eventually(tb, "the manager comes to rest", func(context.Context) error {
		if now := len(r.Writes()); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < period {
			return fmt.Errorf("last write %s ago: %v", time.Since(since), r.Writes()[max(0, last-3):])
		}
		return nil
	})
}

// Requests counts what a manager asks of the API server.
type Requests struct {
	mu     sync.Mutex
	reads  int
	writes []string
	fault  func(write int) Fault
}

// Fault is what becomes of a write.
type Fault int

// The faults.
const (
	// None: it is done and answered.
	None Fault = iota
	// Before: the manager loses the API server before the write arrives.
	Before
	// After: the write is done, but its answer is lost.
	After
)

// ErrCut is the error of a write that a fault hit.
var ErrCut = errors.New("connection cut by the test")

// Inject has the function say what becomes of each write from now on, counted from 1.
func (r *Requests) Inject(fault func(write int) Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes, r.fault = nil, fault
}

// Writes are the methods and paths of the requests that change something, but for Events.
func (r *Requests) Writes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.writes...)
}

// Reads is how many GET requests there were.
func (r *Requests) Reads() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}

type counter struct {
	next     http.RoundTripper
	requests *Requests
}

// RoundTrip counts the request, and lets it pass unless a fault hits it.
func (c counter) RoundTrip(request *http.Request) (*http.Response, error) {
	fault := c.requests.count(request)
	if fault == Before {
		return nil, ErrCut
	}
	response, err := c.next.RoundTrip(request)
	if fault == After && err == nil {
		_ = response.Body.Close()
		return nil, ErrCut
	}
	return response, err
}

func (r *Requests) count(request *http.Request) Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request.Method == http.MethodGet {
		r.reads++
		return None
	}
	if strings.Contains(request.URL.Path, "/events") {
		return None
	}
	r.writes = append(r.writes, request.Method+" "+request.URL.Path)
	if r.fault == nil {
		return None
	}
	return r.fault(len(r.writes))
}
