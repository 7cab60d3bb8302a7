// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package refresh_test shows the promise of the product with everything real but the
// node: API server, controllers, two issuers over the ConfigMap store, and two
// sidecar processes in front of one application.
package refresh_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers"
	"github.com/tokenward/tokenward/controllers/certificates"
	"github.com/tokenward/tokenward/controllers/sessionkeys"
	"github.com/tokenward/tokenward/controllers/signingkey"
	"github.com/tokenward/tokenward/controllers/tokenpolicy"
	"github.com/tokenward/tokenward/internal/protocol"
	"github.com/tokenward/tokenward/internal/settings"
	"github.com/tokenward/tokenward/internal/testenv"
	"github.com/tokenward/tokenward/internal/users/password"
	"github.com/tokenward/tokenward/issuer"
)

const (
	operator = "tokenward-system"
	tenant   = "shop"
	secret   = "correct horse battery staple"
	patience = 2 * time.Minute
)

// setBack is a clock that is behind the real one by an amount that can be changed: an
// issuer that runs on it makes tokens that are as old as that.
type setBack struct{ behind atomic.Int64 }

func (c *setBack) Now() time.Time { return time.Now().Add(-time.Duration(c.behind.Load())) }

func (c *setBack) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// world is the whole set-up.
type world struct {
	admin    client.Client
	clock    *setBack
	sidecars []string // base URLs
}

func start(t *testing.T) *world {
	t.Helper()
	env := testenv.Start(t, testenv.Options{})
	admin, err := client.New(env.Config, client.Options{Scheme: controllers.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{admin: admin, clock: &setBack{}}
	w.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operator}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tenant}})

	issuers := []net.Listener{listen(t), listen(t)}
	first := "https://" + issuers[0].Addr().String()
	startManager(t, env.Config, controllers.CacheOptions(operator), func(mgr ctrl.Manager) error {
		for _, setUp := range []func() error{
			func() error {
				return certificates.SetupWithManager(mgr, certificates.Options{Namespace: operator, IssuerURL: first})
			},
			func() error { return sessionkeys.SetupWithManager(mgr, sessionkeys.Options{Namespace: operator}) },
			func() error { return signingkey.SetupWithManager(mgr, signingkey.Options{Namespace: operator}) },
			func() error {
				return tokenpolicy.SetupWithManager(mgr, tokenpolicy.Options{Namespace: operator, IssuerURL: first, Template: "none"})
			},
		} {
			if err := setUp(); err != nil {
				return err
			}
		}
		return nil
	})
	for _, listener := range issuers {
		startManager(t, env.Config, issuer.CacheOptions(operator), func(mgr ctrl.Manager) error {
			return issuer.SetupWithManager(mgr, issuer.Options{
				Namespace: operator, Listener: listener, Clock: w.clock, Metrics: prometheus.NewRegistry(),
			})
		})
	}
	w.applyTenant(t)

	app := startApp(t)
	binary := filepath.Join(t.TempDir(), "tokenward-sidecar")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./sidecar")
	build.Dir = testenv.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the sidecar: %v\n%s", err, out)
	}
	for i, listener := range issuers {
		file := w.settings(t)
		w.startSidecar(t, fmt.Sprintf("pod-%d", i), binary, app, strings.Replace(file, first, "https://"+listener.Addr().String(), 1))
	}
	return w
}

func (w *world) create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		if err := w.admin.Create(t.Context(), object); err != nil {
			t.Fatalf("create %T %s: %v", object, object.GetName(), err)
		}
	}
}

// applyTenant brings key, policy and one user, and waits until all of it is ready.
func (w *world) applyTenant(t *testing.T) {
	t.Helper()
	name := metav1.ObjectMeta{Namespace: tenant, Name: "shop"}
	policy := &api.TokenPolicy{ObjectMeta: name, Spec: api.TokenPolicySpec{
		SigningKeyRef: api.SigningKeyReference{Name: "shop"},
		Issuer:        "https://shop.example.com",
		Audiences:     []string{"shop-api"},
		Leeway:        &metav1.Duration{},
		AccessToken:   api.AccessToken{TTL: &metav1.Duration{Duration: 30 * time.Second}},
		Users:         api.Users{Secret: &api.SecretUsers{Name: "shop-users"}},
		Refresh:       api.Refresh{Early: &metav1.Duration{}, ReuseGrace: &metav1.Duration{Duration: 29 * time.Second}},
	}}
	w.create(t,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "default"}},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "shop-users"},
			StringData: map[string]string{"alice": `{"password": "` + password.Hash(secret) + `"}`},
		},
		&api.SigningKey{ObjectMeta: name},
		policy,
	)
	eventually(t, "the policy is ready", func() error {
		if err := w.admin.Get(t.Context(), client.ObjectKeyFromObject(policy), policy); err != nil {
			return err
		}
		if !meta.IsStatusConditionTrue(policy.Status.Conditions, api.ConditionReady) {
			return fmt.Errorf("conditions: %+v", policy.Status.Conditions)
		}
		return nil
	})
}

// settings is the file as the manager publishes it.
func (w *world) settings(t *testing.T) string {
	t.Helper()
	object := &corev1.ConfigMap{}
	if err := w.admin.Get(t.Context(), client.ObjectKey{Namespace: tenant, Name: "tokenward-shop"}, object); err != nil {
		t.Fatal(err)
	}
	return object.Data[settings.Key]
}

// startSidecar runs the sidecar of one pod, with a token that the API server made for it.
func (w *world) startSidecar(t *testing.T, pod, binary, app, file string) {
	t.Helper()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: pod},
		Spec:       corev1.PodSpec{ServiceAccountName: "default", Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	w.create(t, object)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:      []string{protocol.Audience},
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: object.UID},
	}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "default"}}
	if err := w.admin.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	identity := filepath.Join(dir, "token")
	for path, content := range map[string]string{identity: request.Status.Token, filepath.Join(dir, settings.Key): file} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, admin := listen(t), listen(t)
	address, adminAddress := listener.Addr().String(), admin.Addr().String()
	_ = listener.Close()
	_ = admin.Close()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(context.WithoutCancel(t.Context()), binary,
		"--listen="+address, "--admin-listen="+adminAddress, "--upstream="+app, "--settings-dir="+dir, "--identity-token-file="+identity)
	command.Stdout, command.Stderr = log, log
	err = command.Start()
	_ = log.Close() // the process has its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		if err := command.Wait(); err != nil {
			t.Errorf("the sidecar of %s ended with: %v", pod, err)
		}
		if t.Failed() {
			written, _ := os.ReadFile(log.Name())
			t.Logf("%s: %s", pod, written)
		}
	})
	eventually(t, pod+" is ready", func() error {
		return get(t, "http://"+adminAddress+"/readyz")
	})
	w.sidecars = append(w.sidecars, "http://"+address)
}

// startManager runs a manager of controller-runtime until the test ends.
func startManager(t *testing.T, access *rest.Config, cacheOptions cache.Options, setUp func(ctrl.Manager) error) {
	t.Helper()
	mgr, err := ctrl.NewManager(access, ctrl.Options{
		Scheme: controllers.Scheme(), Cache: cacheOptions,
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := setUp(mgr); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("a manager ended with: %v", err)
		}
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func get(t *testing.T, url string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", url, response.StatusCode)
	}
	return nil
}

func eventually(t *testing.T, what string, is func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		err := is()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s: %v", what, err)
		}
	}
}
