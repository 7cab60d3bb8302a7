// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package injection_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tokenward/tokenward/controllers"
	"github.com/tokenward/tokenward/controllers/certificates"
	"github.com/tokenward/tokenward/internal/servingcert"
)

// TestRotationUnderLoad has months pass on the operator's clock while pods are created.
func TestRotationUnderLoad(t *testing.T) {
	_, admin := controlPlane(t)
	const day = 24 * time.Hour
	now := time.Now()
	// The API server's own clock cannot be moved, so whatever is served has to be valid now.
	o := startOperator(t, now.Add(-247*day))
	namespace := tenant(t, nil)
	eventually(t, "there is an authority", func(ctx context.Context) error {
		return admin.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: servingcert.IssuerSecret}, &corev1.Secret{})
	})
	o.clock.SetTime(now.Add(-63 * day)) // the first certificate has ended long ago
	o.wake(t)
	o.serving(t, namespace)

	load := startLoad(t, namespace)
	load.waitFor(t, 100)
	for _, step := range []struct {
		what                string
		age                 time.Duration
		certificate, bundle bool // whether it changes
	}{
		{"the certificate has a third of its life left", 60 * time.Hour, true, false},
		{"the authority has 120 days left and gets a successor", 46 * time.Hour, false, true},
		{"the successor has been in the bundle for a day and signs", 12 * time.Hour, true, true},
	} {
		certificate, trusted := servedCertificate(t, o), bundle(t)
		o.clock.SetTime(now.Add(-step.age))
		o.wake(t)
		eventually(t, step.what, func(context.Context) error {
			if (servedCertificate(t, o) != certificate) != step.certificate {
				return fmt.Errorf("the certificate changed: want %t", step.certificate)
			}
			if (bundle(t) != trusted) != step.bundle {
				return fmt.Errorf("the bundle changed: want %t", step.bundle)
			}
			return nil
		})
		load.waitFor(t, 100)
	}
	load.finish(t)
}

// wake has the operator look at its clock.
func (o *operator) wake(t *testing.T) {
	t.Helper()
	_, admin := controlPlane(t)
	authority := &corev1.Secret{}
	key := client.ObjectKey{Namespace: operatorNamespace, Name: certificates.AuthoritySecret}
	eventually(t, "the operator is woken", func(ctx context.Context) error {
		if err := admin.Get(ctx, key, authority); err != nil {
			return err
		}
		if authority.Annotations == nil {
			authority.Annotations = map[string]string{}
		}
		authority.Annotations["example.com/time"] = o.clock.Now().String()
		return admin.Update(ctx, authority)
	})
}

// bundle is what the API server is told to trust.
func bundle(t *testing.T) string {
	t.Helper()
	_, admin := controlPlane(t)
	found := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := admin.Get(t.Context(), client.ObjectKey{Name: certificates.WebhookConfiguration}, found); err != nil {
		t.Fatal(err)
	}
	return string(found.Webhooks[0].ClientConfig.CABundle)
}

// servedCertificate is what the webhook shows to who connects now.
func servedCertificate(t *testing.T, o *operator) string {
	t.Helper()
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port))
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	connection, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	leaf := connection.(*tls.Conn).ConnectionState().PeerCertificates[0]
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}))
}

// load creates pods, without keeping them, until it is told to stop.
type load struct {
	cancel   context.CancelFunc
	done     sync.WaitGroup
	admitted atomic.Int64
	mu       sync.Mutex
	failures []string
}

func startLoad(t *testing.T, namespace string) *load {
	t.Helper()
	env, _ := controlPlane(t)
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	for range 4 {
		each, err := client.New(rest.CopyConfig(env.Config), client.Options{Scheme: controllers.Scheme()})
		if err != nil {
			t.Fatal(err)
		}
		l.done.Go(func() {
			for ctx.Err() == nil {
				err := each.Create(ctx, pod(namespace), client.DryRunAll)
				switch {
				case ctx.Err() != nil:
				case err != nil:
					l.mu.Lock()
					l.failures = append(l.failures, err.Error())
					l.mu.Unlock()
				default:
					l.admitted.Add(1)
				}
			}
		})
	}
	t.Cleanup(func() { l.cancel(); l.done.Wait() })
	return l
}

// waitFor lets n more pods be admitted.
func (l *load) waitFor(t *testing.T, n int64) {
	t.Helper()
	want := l.admitted.Load() + n
	eventually(t, "more pods are admitted", func(context.Context) error {
		if l.admitted.Load() < want {
			return context.DeadlineExceeded
		}
		return nil
	})
}

func (l *load) finish(t *testing.T) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	if len(l.failures) > 0 {
		t.Errorf("%d of %d pods were not admitted, the first because %s", len(l.failures), l.admitted.Load(), strings.Join(l.failures[:1], ""))
	}
	t.Logf("%d pods admitted", l.admitted.Load())
}
