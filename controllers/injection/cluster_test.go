// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers"
	"github.com/tokenward/tokenward/controllers/certificates"
	"github.com/tokenward/tokenward/controllers/injection"
	"github.com/tokenward/tokenward/internal/servingcert"
	"github.com/tokenward/tokenward/internal/testenv"
)

const operatorNamespace = "tokenward-system"

// The control plane of this package: as in a real cluster, API tokens are mounted
// into pods, and the policies of config/policies are installed. It is started by the
// first test that asks for it: fuzzing runs this binary many times over without.
var cluster = sync.OnceValues(startCluster)

var clusterUsed bool

type testCluster struct {
	env   *testenv.Env
	admin client.Client
}

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	code := m.Run()
	if clusterUsed {
		if c, err := cluster(); err == nil {
			if err := c.env.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop the control plane:", err)
				code = max(code, 1)
			}
		}
	}
	os.Exit(code)
}

func startCluster() (*testCluster, error) {
	clusterUsed = true
	env, err := testenv.New(testenv.Options{ServiceAccountAdmission: true})
	if err != nil {
		return nil, err
	}
	c := &testCluster{env: env}
	if c.admin, err = client.New(env.Config, client.Options{Scheme: controllers.Scheme()}); err == nil {
		err = c.furnish(context.Background())
	}
	if err != nil {
		_ = env.Stop()
		return nil, err
	}
	return c, nil
}

// furnish makes what every test needs.
func (c *testCluster) furnish(ctx context.Context) error {
	if err := c.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}}); err != nil {
		return err
	}
	for _, file := range []string{"require-sidecar.yaml", "misplaced-annotation.yaml"} {
		if err := install(ctx, c.admin, filepath.Join("policies", file)); err != nil {
			return err
		}
	}
	return nil
}

// controlPlane is the package's cluster.
func controlPlane(t *testing.T) (*testenv.Env, client.Client) {
	t.Helper()
	c, err := cluster()
	if err != nil {
		t.Fatal(err)
	}
	return c.env, c.admin
}

// install creates what a file of config/ holds.
func install(ctx context.Context, admin client.Client, path string, change ...func(*unstructured.Unstructured) error) error {
	file, err := os.Open(filepath.Join(testenv.Root(), "config", path))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	for decoder := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); err != nil {
			break // the end
		}
		for _, c := range change {
			if err := c(object); err != nil {
				return err
			}
		}
		if err := admin.Create(ctx, object); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// operator is a manager with the webhook, its certificates and its configuration.
type operator struct {
	clock *clocktesting.FakePassiveClock
	port  int
	stop  func()
}

// startOperator runs the webhook over TLS as in production; only the address in its
// configuration is a local one, because a bare API server cannot reach Services.
func startOperator(t *testing.T, now time.Time) *operator {
	t.Helper()
	env, admin := controlPlane(t)
	o := &operator{clock: clocktesting.NewFakePassiveClock(now), port: freePort(t)}
	certificate, err := servingcert.New(env.Config, operatorNamespace, servingcert.WebhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	mgr, err := ctrl.NewManager(env.Config, ctrl.Options{
		Scheme:     controllers.Scheme(),
		Cache:      controllers.CacheOptions(operatorNamespace),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
		WebhookServer: webhook.NewServer(webhook.Options{
			Host: "127.0.0.1", Port: o.port, TLSOpts: []func(*tls.Config){certificate.Configure},
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		mgr.Add(certificate),
		certificates.SetupWithManager(mgr, certificates.Options{Namespace: operatorNamespace, IssuerURL: "https://tokenward-issuer.tokenward-system.svc", Clock: o.clock}),
		injection.SetupWithManager(mgr, injection.Options{Namespace: operatorNamespace, SidecarImage: "example.com/tokenward:v0.1.0"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	mgr.GetWebhookServer().Register("/meddle", meddler())
	if err := install(t.Context(), admin, "webhook/mutatingwebhookconfiguration.yaml", o.localise); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	o.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the manager ended with: %v", err)
		}
	})
	t.Cleanup(func() {
		o.stop()
		o.clean(t)
	})
	return o
}

// localise has a webhook configuration call this operator directly.
func (o *operator) localise(object *unstructured.Unstructured) error {
	hooks, _, err := unstructured.NestedSlice(object.Object, "webhooks")
	if err != nil {
		return err
	}
	for _, hook := range hooks {
		hook := hook.(map[string]any)
		path, _, err := unstructured.NestedString(hook, "clientConfig", "service", "path")
		if err != nil {
			return err
		}
		hook["clientConfig"] = map[string]any{"url": o.url(path)}
	}
	return unstructured.SetNestedSlice(object.Object, hooks, "webhooks")
}

func (o *operator) url(path string) string {
	return "https://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port)) + path
}

// clean takes away what the operator made, so that the next one starts afresh.
func (o *operator) clean(t *testing.T) {
	t.Helper()
	_, admin := controlPlane(t)
	ctx := context.WithoutCancel(t.Context())
	if err := client.IgnoreNotFound(admin.Delete(ctx, &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: certificates.WebhookConfiguration},
	})); err != nil {
		t.Error(err)
	}
	if err := admin.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(operatorNamespace)); err != nil {
		t.Error(err)
	}
}

// serving waits until an annotated pod is injected in the tenant's namespace.
func (o *operator) serving(t *testing.T, namespace string) {
	t.Helper()
	_, admin := controlPlane(t)
	eventually(t, "annotated pods are injected", func(ctx context.Context) error {
		return admin.Create(ctx, pod(namespace), client.DryRunAll)
	})
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port
}

// tenant makes a namespace with a service account, which nobody else does here, and
// the TokenPolicy "shop".
func tenant(t *testing.T, labels map[string]string) string {
	t.Helper()
	_, admin := controlPlane(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "tenant-", Labels: labels}}
	if err := admin.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	serviceAccount(t, namespace.Name)
	if err := admin.Create(t.Context(), policy(namespace.Name, "shop")); err != nil {
		t.Fatal(err)
	}
	return namespace.Name
}

func serviceAccount(t *testing.T, namespace string) {
	t.Helper()
	_, admin := controlPlane(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}}
	if err := admin.Create(t.Context(), account); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
}

func policy(namespace, name string) *api.TokenPolicy {
	return &api.TokenPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: api.TokenPolicySpec{
			SigningKeyRef: api.SigningKeyReference{Name: "shop"},
			Issuer:        "https://shop.example.com",
			Audiences:     []string{"shop-api"},
			Users:         api.Users{Secret: &api.SecretUsers{Name: "shop-users"}},
		},
	}
}

// pod is one that asks for the sidecar and meets the "restricted" standard itself.
func pod(namespace string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, GenerateName: "shop-",
			Annotations: map[string]string{api.PolicyAnnotation: "shop"},
		},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "app", Image: "example.com/shop:1",
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	const patience = 60 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	every := time.NewTicker(25 * time.Millisecond)
	defer every.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not after %s: %v", what, patience, err)
		case <-every.C:
		}
	}
}
