// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

// Package servingcert serves TLS with a certificate that lives in a Secret.
//
// It owns following the Secret through the API, so that a renewed certificate is
// in use as soon as it is written, on every replica and without a volume. It
// neither makes nor renews certificates: controllers/certificates does. Manager
// and issuer both use it.
package servingcert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// The Secrets with serving certificates, in the operator's namespace. They are of
// type kubernetes.io/tls and hold, besides, the authorities as ca.crt.
const (
	// WebhookSecret is for the manager's admission webhook.
	WebhookSecret = "tokenward-webhook-tls"
	// IssuerSecret is for the issuer.
	IssuerSecret = "tokenward-issuer-tls"
)

// ErrNoCertificate says that the Secret does not exist yet, or has held no usable
// key pair since the start.
var ErrNoCertificate = errors.New("no serving certificate yet")

// Source holds the newest usable certificate of one Secret. It is a runnable of a
// controller-runtime manager that runs on every replica.
type Source struct {
	namespace, name string
	watch           cache.ListerWatcher
	current         atomic.Pointer[tls.Certificate]
}

// New makes a source for one Secret. It needs get, list and watch of that Secret
// alone: the watch is limited to its name, as RBAC resourceNames ask for.
func New(config *rest.Config, namespace, name string) (*Source, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the Secret %s/%s: %w", namespace, name, err)
	}
	return &Source{
		namespace: namespace,
		name:      name,
		watch: cache.NewListWatchFromClient(clients.CoreV1().RESTClient(), "secrets", namespace,
			fields.OneTermEqualSelector("metadata.name", name)),
	}, nil
}

// Start follows the Secret until ctx ends. A Secret that is deleted or broken
// leaves the last good certificate in use: it is still the best there is.
func (s *Source) Start(ctx context.Context) error {
	informer := cache.NewSharedInformer(s.watch, &corev1.Secret{}, 0)
	use := func(object any) {
		secret, ok := object.(*corev1.Secret)
		if !ok {
			return
		}
		if err := s.use(secret); err != nil {
			logf.FromContext(ctx).Error(err, "keeping the serving certificate in use")
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    use,
		UpdateFunc: func(_, object any) { use(object) },
	}); err != nil {
		return fmt.Errorf("follow the Secret %s/%s: %w", s.namespace, s.name, err)
	}
	informer.RunWithContext(ctx)
	return nil
}

// NeedLeaderElection is false: every replica serves.
func (*Source) NeedLeaderElection() bool { return false }

// use takes the Secret's key pair, unless it is broken.
func (s *Source) use(secret *corev1.Secret) error {
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("read the key pair in Secret %s/%s: %w", s.namespace, s.name, err)
	}
	s.current.Store(&pair)
	return nil
}

// GetCertificate is for [tls.Config]. It fails with [ErrNoCertificate] until there is one.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	pair := s.current.Load()
	if pair == nil {
		return nil, fmt.Errorf("secret %s/%s: %w", s.namespace, s.name, ErrNoCertificate)
	}
	return pair, nil
}

// Configure sets up a server's TLS: TLS 1.2 at least, and the source's certificate.
// It fits controller-runtime's TLSOpts.
func (s *Source) Configure(config *tls.Config) {
	config.MinVersion = tls.VersionTLS12
	config.GetCertificate = s.GetCertificate
}

// Ready says why TLS cannot be served right now: there is no certificate, or the
// one there is has expired. For readiness only: a restart would mend neither.
func (s *Source) Ready() error {
	pair, err := s.GetCertificate(nil)
	if err != nil {
		return err
	}
	leaf := pair.Leaf
	if leaf == nil { // only with GODEBUG=x509keypairleaf=0
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return fmt.Errorf("read the certificate in Secret %s/%s: %w", s.namespace, s.name, err)
		}
	}
	if now := time.Now(); now.After(leaf.NotAfter) {
		return fmt.Errorf("the certificate in Secret %s/%s expired at %s", s.namespace, s.name, leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// Check is [Source.Ready] as a readiness check of a controller-runtime manager.
func (s *Source) Check(*http.Request) error { return s.Ready() }
