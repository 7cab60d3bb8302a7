// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package prometheus_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/internal/testenv"
	"github.com/tokenward/tokenward/issuer"
	"github.com/tokenward/tokenward/sidecar/admin"
	"github.com/tokenward/tokenward/sidecar/metrics"
	"github.com/tokenward/tokenward/sidecar/reload"
	"github.com/tokenward/tokenward/sidecar/revocation"
)

const operator = "tokenward-system"

// startIssuer runs an issuer with the policy shop/web, in whose store one record does not
// open, and returns what serves its metrics.
func startIssuer(t *testing.T) http.Handler {
	t.Helper()
	env := testenv.Start(t, testenv.Options{})
	kube, err := client.New(env.Config, client.Options{Scheme: issuer.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	sessions := map[string]string{api.ComponentLabel: "sessions"}
	policy := &api.TokenPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: api.TokenPolicySpec{
		SigningKeyRef: api.SigningKeyReference{Name: "web"},
		Issuer:        "https://shop.example.com",
		Audiences:     []string{"shop-api"},
		Users:         api.Users{Secret: &api.SecretUsers{Name: "users"}},
	}}
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operator}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: operator, Name: "tokenward-sessions", Labels: sessions},
			StringData: map[string]string{"current": "a", "key-a": strings.Repeat("k", 32)},
		},
		policy,
	} {
		if err := kube.Create(t.Context(), object); err != nil {
			t.Fatalf("create %T %s: %v", object, object.GetName(), err)
		}
	}
	shard := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: operator, Name: fmt.Sprintf("sessions-%s-0", policy.UID), Labels: map[string]string{
			api.ComponentLabel: "sessions", api.AnnotationPrefix + "policy-uid": string(policy.UID),
		}},
		BinaryData: map[string][]byte{"forged": []byte("no record of a session")},
	}
	if err := kube.Create(t.Context(), shard); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	mgr, err := ctrl.NewManager(env.Config, ctrl.Options{
		Scheme: issuer.Scheme(), Cache: issuer.CacheOptions(operator),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := issuer.SetupWithManager(mgr, issuer.Options{Namespace: operator, Listener: listener, Metrics: registry}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the issuer ended with: %v", err)
		}
	})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
}

// brokenSidecar is the admin port of a sidecar that never had settings, and has not heard
// an issuer for a minute.
func brokenSidecar(t *testing.T) http.Handler {
	t.Helper()
	counted := metrics.New()
	loader := reload.New(reload.Options{Dir: t.TempDir(), Metrics: counted, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	loader.Check()
	handler := &admin.Handler{
		Settings: loader, Revocations: &revocation.Follower{
			Open: func(context.Context, string) (io.ReadCloser, error) { return nil, io.EOF },
			Now:  time.Now,
		},
		Metrics: counted, Probes: http.NotFoundHandler(), Now: time.Now, Started: time.Now().Add(-time.Minute),
	}
	none := func() int { return 0 }
	handler.Gauges(none, none)
	return handler.Routes()
}
