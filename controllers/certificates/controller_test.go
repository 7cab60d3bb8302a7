// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/certificates"
	"github.com/tokenward/tokenward/controllers/internal/controllertest"
	"github.com/tokenward/tokenward/internal/servingcert"
	"github.com/tokenward/tokenward/internal/testenv"
)

var cluster *controllertest.Cluster

func TestMain(m *testing.M) {
	os.Exit(controllertest.Run(m, &cluster, "controllers/certificates"))
}

var options = certificates.Options{Namespace: controllertest.Namespace, IssuerURL: "https://issuer.example.com:8443"}

var allSecrets = []string{certificates.AuthoritySecret, servingcert.WebhookSecret, servingcert.IssuerSecret}

// installed brings the webhook's configuration, as the installation does, and takes
// away everything when the test ends.
func installed(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, name := range allSecrets {
			deleteIfThere(ctx, t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: controllertest.Namespace, Name: name}})
		}
		deleteIfThere(ctx, t, &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: certificates.WebhookConfiguration}})
	})
	document, err := os.ReadFile(filepath.Join(testenv.Root(), "config", "webhook", "mutatingwebhookconfiguration.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := yaml.UnmarshalStrict(document, configuration); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Admin.Create(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
}

func deleteIfThere(ctx context.Context, t *testing.T, object client.Object) {
	t.Helper()
	if err := cluster.Admin.Delete(ctx, object); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

func setup(mgr ctrl.Manager) error { return certificates.SetupWithManager(mgr, options) }

func secret(ctx context.Context, name string) (*corev1.Secret, error) {
	found := &corev1.Secret{}
	err := cluster.Admin.Get(ctx, types.NamespacedName{Namespace: controllertest.Namespace, Name: name}, found)
	return found, err
}

func webhooks(ctx context.Context) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	found := &admissionregistrationv1.MutatingWebhookConfiguration{}
	err := cluster.Admin.Get(ctx, types.NamespacedName{Name: certificates.WebhookConfiguration}, found)
	return found, err
}

// complete says what is not as it should be: both certificates verify under the one
// bundle that everybody is told.
func complete(ctx context.Context) error {
	authority, err := secret(ctx, certificates.AuthoritySecret)
	if err != nil {
		return err
	}
	bundle := authority.Data[certificates.BundleKey]
	configuration, err := webhooks(ctx)
	if err != nil {
		return err
	}
	if !bytes.Equal(configuration.Webhooks[0].ClientConfig.CABundle, bundle) {
		return errors.New("caBundle is not the bundle")
	}
	for name, hosts := range map[string][]string{
		servingcert.WebhookSecret: {"tokenward-webhook.tokenward-system.svc", "tokenward-webhook.tokenward-system.svc.cluster.local"},
		servingcert.IssuerSecret:  {"tokenward-issuer.tokenward-system.svc", "issuer.example.com"},
	} {
		serving, err := secret(ctx, name)
		if err != nil {
			return err
		}
		if serving.Type != corev1.SecretTypeTLS || serving.Labels[api.ComponentLabel] != "certificates" {
			return fmt.Errorf("secret %s: type %s, labels %v", name, serving.Type, serving.Labels)
		}
		if !bytes.Equal(serving.Data["ca.crt"], bundle) {
			return fmt.Errorf("ca.crt of Secret %s is not the bundle", name)
		}
		pair, err := tls.X509KeyPair(serving.Data[corev1.TLSCertKey], serving.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			return err
		}
		if err := verify(pair.Leaf, bundle, hosts); err != nil {
			return fmt.Errorf("secret %s: %w", name, err)
		}
	}
	return nil
}

func verify(leaf *x509.Certificate, bundle []byte, hosts []string) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("the bundle is empty")
	}
	for _, host := range hosts {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			return err
		}
	}
	return nil
}

func TestTwoManagersMakeOneAuthority(t *testing.T) {
	for round := range 5 {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			installed(t)
			// Neither leads: the worst that a broken leader election could do.
			first, _ := cluster.Manager(t, setup)
			second, _ := cluster.Manager(t, setup)
			controllertest.Eventually(t, "certificates are complete", complete)
			first.Quiet(t, 1500*time.Millisecond) // longer than the pause after a lost race
			second.Quiet(t, 1500*time.Millisecond)
			if err := complete(t.Context()); err != nil {
				t.Error(err)
			}
			authority, err := secret(t.Context(), certificates.AuthoritySecret)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(authority.Data[certificates.BundleKey]), "BEGIN CERTIFICATE"); n != 1 {
				t.Errorf("%d authorities in the bundle", n)
			}
			// Written once: whoever came second found it and left it.
			for _, field := range authority.ManagedFields {
				if field.Operation != metav1.ManagedFieldsOperationUpdate || len(authority.ManagedFields) != 1 {
					t.Errorf("written by %+v", authority.ManagedFields)
				}
			}
		})
	}
}

func TestDamageIsRepaired(t *testing.T) {
	installed(t)
	requests, _ := cluster.Manager(t, setup)
	controllertest.Eventually(t, "certificates are complete", complete)
	authority, err := secret(t.Context(), certificates.AuthoritySecret)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string]func(context.Context) error{
		"caBundle overwritten, as by a tool that applies the installation again": func(ctx context.Context) error {
			configuration, err := webhooks(ctx)
			if err != nil {
				return err
			}
			configuration.Webhooks[0].ClientConfig.CABundle = nil
			return cluster.Admin.Update(ctx, configuration)
		},
		"a serving certificate deleted": func(ctx context.Context) error {
			return cluster.Admin.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: controllertest.Namespace, Name: servingcert.IssuerSecret}})
		},
		"a key replaced by nonsense": func(ctx context.Context) error {
			serving, err := secret(ctx, servingcert.WebhookSecret)
			if err != nil {
				return err
			}
			serving.Data[corev1.TLSPrivateKeyKey] = []byte("nonsense")
			return cluster.Admin.Update(ctx, serving)
		},
		"a label removed": func(ctx context.Context) error {
			serving, err := secret(ctx, servingcert.IssuerSecret)
			if err != nil {
				return err
			}
			serving.Labels = nil
			return cluster.Admin.Update(ctx, serving)
		},
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			if err := do(t.Context()); err != nil {
				t.Fatal(err)
			}
			controllertest.Eventually(t, "certificates are complete again", complete)
			after, err := secret(t.Context(), certificates.AuthoritySecret)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(after.Data["tls.crt"], authority.Data["tls.crt"]) {
				t.Error("the authority was replaced too")
			}
		})
	}
	t.Run("the configuration is never created", func(t *testing.T) {
		configuration, err := webhooks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := cluster.Admin.Delete(t.Context(), configuration); err != nil {
			t.Fatal(err)
		}
		requests.Quiet(t, 500*time.Millisecond)
		if _, err := webhooks(t.Context()); !apierrors.IsNotFound(err) {
			t.Errorf("the configuration is back: %v", err)
		}
		// Put back by an installation, it gets the bundle.
		configuration.ObjectMeta = metav1.ObjectMeta{Name: certificates.WebhookConfiguration}
		configuration.Webhooks[0].ClientConfig.CABundle = nil
		if err := cluster.Admin.Create(t.Context(), configuration); err != nil {
			t.Fatal(err)
		}
		controllertest.Eventually(t, "certificates are complete again", complete)
	})
}

func TestWebhookByURLGetsItsHost(t *testing.T) {
	installed(t)
	cluster.Manager(t, setup)
	controllertest.Eventually(t, "the URL is set", func(ctx context.Context) error {
		configuration, err := webhooks(ctx)
		if err != nil {
			return err
		}
		configuration.Webhooks[0].ClientConfig.Service, configuration.Webhooks[0].ClientConfig.URL = nil, new("https://192.0.2.9:9443/mutate--v1-pod")
		return cluster.Admin.Update(ctx, configuration)
	})
	controllertest.Eventually(t, "the certificate has the address", func(ctx context.Context) error {
		if err := complete(ctx); err != nil {
			return err
		}
		serving, err := secret(ctx, servingcert.WebhookSecret)
		if err != nil {
			return err
		}
		pair, err := tls.X509KeyPair(serving.Data[corev1.TLSCertKey], serving.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			return err
		}
		return verify(pair.Leaf, serving.Data["ca.crt"], []string{"192.0.2.9"})
	})
}

func TestOptionsAreChecked(t *testing.T) {
	as, _ := cluster.ManagerConfig()
	mgr, err := ctrl.NewManager(as, ctrl.Options{HealthProbeBindAddress: "0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"", "tokenward-issuer", "https://", ":8443"} {
		err := certificates.SetupWithManager(mgr, certificates.Options{Namespace: "a", IssuerURL: address})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("the issuer's URL %q has no host", address)) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// The source that webhook and issuer serve from, with the permissions of the manager.
func TestServingFollowsTheSecret(t *testing.T) {
	installed(t)
	as, _ := cluster.ManagerConfig()
	source, err := servingcert.New(as, controllertest.Namespace, servingcert.WebhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	if err := source.Check(&http.Request{}); !errors.Is(err, servingcert.ErrNoCertificate) {
		t.Errorf("ready without a certificate: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- source.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	cluster.Manager(t, setup)
	serves := func(ctx context.Context) error {
		if err := source.Ready(); err != nil {
			return err
		}
		pair, err := source.GetCertificate(nil)
		if err != nil {
			return err
		}
		held, err := secret(ctx, servingcert.WebhookSecret)
		if err != nil {
			return err
		}
		want, err := tls.X509KeyPair(held.Data[corev1.TLSCertKey], held.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			return err
		}
		if !bytes.Equal(pair.Certificate[0], want.Certificate[0]) {
			return errors.New("an old certificate is served")
		}
		return nil
	}
	controllertest.Eventually(t, "the certificate is served", serves)
	before, err := source.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	held, err := secret(t.Context(), servingcert.WebhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	held.Data[corev1.TLSPrivateKeyKey] = []byte("nonsense")
	if err := cluster.Admin.Update(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "the repaired certificate is served", func(ctx context.Context) error {
		if err := source.Ready(); err != nil {
			t.Errorf("meanwhile nothing was served: %v", err)
		}
		after, err := source.GetCertificate(nil)
		if err != nil {
			return err
		}
		if bytes.Equal(after.Certificate[0], before.Certificate[0]) {
			return errors.New("the old one is still served")
		}
		return serves(ctx)
	})
}
