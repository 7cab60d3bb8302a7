// Copyright The Tokenward Authors.
// SPDX-License-Identifier: Apache-2.0

package certificates

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "github.com/tokenward/tokenward/api/v1alpha1"
	"github.com/tokenward/tokenward/controllers/internal/owned"
)

const (
	// AuthoritySecret holds the certificate authority, in the operator's namespace.
	AuthoritySecret = "tokenward-ca"
	// WebhookConfiguration gets the caBundle.
	WebhookConfiguration = "tokenward-injector"

	webhookService = "tokenward-webhook"
	issuerService  = "tokenward-issuer"
)

// Options say where the certificates go and what names they are for.
type Options struct {
	// Namespace is the operator's own.
	Namespace string
	// IssuerURL is where sidecars reach the issuer; its host is in the issuer's
	// certificate beside the Service's names.
	IssuerURL string
	// Clock may be nil for the real one.
	Clock clock.PassiveClock
}

// +kubebuilder:rbac:groups="",namespace=tokenward-system,resources=secrets,verbs=get;list;watch;create;update
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations,resourceNames=tokenward-injector,verbs=get;list;watch;patch

// SetupWithManager keeps authority, certificates and caBundle, on the leader.
func SetupWithManager(mgr ctrl.Manager, o Options) error {
	r, err := newReconciler(mgr.GetClient(), mgr.GetAPIReader(), o)
	if err != nil {
		return err
	}
	watched, err := watchedObjects(mgr, o.Namespace)
	if err != nil {
		return err
	}
	if err := mgr.Add(watched); err != nil {
		return fmt.Errorf("add the cache of certificates: %w", err)
	}
	always := handler.TypedEnqueueRequestsFromMapFunc(func(context.Context, *metav1.PartialObjectMetadata) []reconcile.Request {
		return []reconcile.Request{{}}
	})
	atStart := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(reconcile.Request{}) // there may be nothing yet whose event would start it
		return nil
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("certificates").
		WatchesRawSource(source.Kind(watched, metadataOf(corev1.SchemeGroupVersion.WithKind("Secret")), always)).
		WatchesRawSource(source.Kind(watched, metadataOf(admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration")), always)).
		WatchesRawSource(atStart).
		Complete(r)
}

// watchedObjects is a cache of its own, limited to what this package owns and to
// metadata: keys are read when they are needed and not kept. Contents come from the
// API server at each reconciliation, so that a decision is never made on stale ones.
func watchedObjects(mgr ctrl.Manager, namespace string) (cache.Cache, error) {
	watched, err := cache.New(mgr.GetConfig(), cache.Options{
		HTTPClient: mgr.GetHTTPClient(),
		Scheme:     mgr.GetScheme(),
		Mapper:     mgr.GetRESTMapper(),
		ByObject: map[client.Object]cache.ByObject{
			metadataOf(corev1.SchemeGroupVersion.WithKind("Secret")): {
				Namespaces: map[string]cache.Config{namespace: {}},
				Label:      labels.SelectorFromSet(labels.Set{api.ComponentLabel: owned.Certificates}),
			},
			// The field selector is also what lets RBAC limit the watch by resourceNames.
			metadataOf(admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration")): {
				Field: fields.OneTermEqualSelector("metadata.name", WebhookConfiguration),
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache of certificates: %w", err)
	}
	return watched, nil
}

func metadataOf(kind schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(kind)
	return object
}

// reconciler reads from the API server, never from a cache. One reconciliation runs at
// a time.
type reconciler struct {
	writer     client.Writer
	reader     client.Reader
	namespace  string
	issuerHost string
	clock      clock.PassiveClock

	// next is the certificate of the next authority as it was last read, nextSince when
	// it was first read.
	next      []byte
	nextSince time.Time
}

func newReconciler(writer client.Writer, reader client.Reader, o Options) (*reconciler, error) {
	if o.Namespace == "" {
		return nil, errors.New("certificates: no namespace is set")
	}
	issuer, err := url.Parse(o.IssuerURL)
	if err != nil || issuer.Hostname() == "" {
		return nil, fmt.Errorf("certificates: the issuer's URL %q has no host: write for example https://tokenward-issuer.tokenward-system.svc", o.IssuerURL)
	}
	r := &reconciler{writer: writer, reader: reader, namespace: o.Namespace, issuerHost: issuer.Hostname(), clock: o.Clock}
	if r.clock == nil {
		r.clock = clock.RealClock{}
	}
	return r, nil
}

// scope is one reconciliation.
type scope struct {
	now       time.Time
	authority *authority
	// webhooks is the configuration that gets the bundle; nil while it is not installed.
	webhooks *admissionregistrationv1.MutatingWebhookConfiguration
	recheck  time.Time
}

// Reconcile brings Secrets and caBundle up to date. The bundle is published before a
// certificate that needs it is written.
func (r *reconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	s := &scope{now: r.clock.Now()}
	for _, phase := range []func(context.Context, *scope) error{
		r.readWebhooks, r.keepAuthority, r.publishBundle, r.keepServing,
	} {
		if err := phase(ctx, s); errors.Is(err, errRaced) {
			return reconcile.Result{RequeueAfter: time.Second}, nil
		} else if err != nil {
			return reconcile.Result{}, err
		}
	}
	return reconcile.Result{RequeueAfter: max(time.Second, s.recheck.Sub(s.now))}, nil
}

func (r *reconciler) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: r.namespace, Name: name}
}
